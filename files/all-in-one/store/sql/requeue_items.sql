-- Only the newest of a document's: an older one that is parked too would be queued with the same content.
UPDATE items
SET state = 'queued', attempts = 0, reason = NULL, available_at = now(), finished_at = NULL
WHERE id IN (
    SELECT DISTINCT ON (document_id, generation_id, content_hash) id
    FROM items
    WHERE state = 'parked' AND (%(documents)s::text[] IS NULL OR document_id = ANY(%(documents)s))
    ORDER BY document_id, generation_id, content_hash, id DESC
)
-- Again, for one that was deleted or submitted again since the selection saw it.
AND state = 'parked'
AND NOT EXISTS (
    SELECT
    FROM items AS pending
    WHERE pending.document_id = items.document_id AND pending.generation_id = items.generation_id
      AND pending.content_hash = items.content_hash AND pending.state IN ('queued', 'running')
)
