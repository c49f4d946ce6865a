-- Every document whose content the generation does not hold, unless it is queued already.
WITH given_up AS (
    UPDATE items
    SET state = 'superseded', reason = 'it is tried again', finished_at = now()
    WHERE generation_id = %(generation)s AND state = 'parked'
)
INSERT INTO items (document_id, content_hash, generation_id)
SELECT documents.id, documents.content_hash, %(generation)s
FROM documents
LEFT JOIN indexed
    ON indexed.document_id = documents.id
    AND indexed.generation_id = %(generation)s
    AND indexed.content_hash = documents.content_hash
WHERE indexed.document_id IS NULL
ORDER BY documents.id
ON CONFLICT (document_id, generation_id, content_hash) WHERE state IN ('queued', 'running') DO NOTHING
