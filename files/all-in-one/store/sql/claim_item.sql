WITH next AS (
    SELECT id
    FROM items
    WHERE generation_id = %(generation)s AND state = 'queued' AND available_at <= now()
    ORDER BY available_at, id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
UPDATE items
SET state = 'running', attempts = attempts + 1, worker = %(worker)s,
    lease_until = now() + make_interval(secs => %(lease)s)
FROM next, documents
WHERE items.id = next.id AND documents.id = items.document_id
RETURNING items.id, items.generation_id, items.attempts, items.content_hash,
          items.document_id, documents.title, documents.text
