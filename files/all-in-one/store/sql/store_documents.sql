-- In the order of ids, so that two requests with the same documents wait for each other instead of deadlocking.
INSERT INTO documents (id, title, text, metadata, source, content_hash)
SELECT *
FROM unnest(%(ids)s::text[], %(titles)s::text[], %(texts)s::text[], %(metadata)s::jsonb[], %(sources)s::text[],
            %(hashes)s::bytea[]) AS given (id, title, text, metadata, source, content_hash)
ORDER BY id
ON CONFLICT (id) DO UPDATE
SET title = excluded.title, text = excluded.text, metadata = excluded.metadata, source = excluded.source,
    content_hash = excluded.content_hash, updated_at = now()
WHERE (documents.content_hash, documents.metadata, documents.source)
    IS DISTINCT FROM (excluded.content_hash, excluded.metadata, excluded.source)
