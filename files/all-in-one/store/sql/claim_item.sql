-- Where the document is gone there is nothing to do, whatever became of its items.
WITH next AS (
    SELECT items.id, documents.title, documents.text
    FROM items
    JOIN documents ON documents.id = items.document_id
    WHERE items.generation_id = %(generation)s AND items.state = 'queued' AND items.available_at <= now()
    ORDER BY items.available_at, items.id
    LIMIT 1
    FOR UPDATE OF items SKIP LOCKED
)
UPDATE items
SET state = 'running', attempts = attempts + 1, worker = %(worker)s,
    lease_until = now() + make_interval(secs => %(lease)s)
FROM next
WHERE items.id = next.id
RETURNING items.id, items.generation_id, items.attempts, items.content_hash,
          items.document_id, next.title, next.text
