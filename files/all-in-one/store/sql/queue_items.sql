-- One item per document and generation that does not hold this content yet.
INSERT INTO items (document_id, content_hash, generation_id)
SELECT given.id, given.content_hash, generations.id
FROM unnest(%(ids)s::text[], %(hashes)s::bytea[]) WITH ORDINALITY AS given (id, content_hash, position)
CROSS JOIN generations
LEFT JOIN indexed
    ON indexed.document_id = given.id
    AND indexed.generation_id = generations.id
    AND indexed.content_hash = given.content_hash
WHERE indexed.document_id IS NULL
ORDER BY given.position
ON CONFLICT (document_id, generation_id, content_hash) WHERE state IN ('queued', 'running') DO NOTHING
