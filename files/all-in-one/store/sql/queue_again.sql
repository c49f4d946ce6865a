-- Every document again, unless its content is queued already; what runs now may still be cut the old way.
WITH stopped AS (
    UPDATE items
    SET state = 'queued', worker = NULL, lease_until = NULL, attempts = 0
    WHERE state = 'running' AND generation_id = %(generation)s
)
INSERT INTO items (document_id, content_hash, generation_id)
SELECT id, content_hash, %(generation)s FROM documents ORDER BY id
ON CONFLICT (document_id, generation_id, content_hash) WHERE state IN ('queued', 'running') DO NOTHING
