SELECT *
FROM (
    SELECT documents.id, documents.title, documents.source, documents.metadata,
           documents.created_at, documents.updated_at,
           coalesce(item.state, 'indexed') AS state, item.reason, coalesce(indexed.chunks, 0) AS chunks
    FROM documents
    LEFT JOIN active_generation ON true
    LEFT JOIN indexed
        ON indexed.document_id = documents.id AND indexed.generation_id = active_generation.generation_id
    LEFT JOIN LATERAL (
        SELECT state, reason
        FROM items
        WHERE items.document_id = documents.id
          AND items.generation_id = active_generation.generation_id
          AND items.content_hash = documents.content_hash
          AND items.state IN ('queued', 'running', 'parked')
          AND (indexed.content_hash IS DISTINCT FROM documents.content_hash)
        ORDER BY items.id DESC
        LIMIT 1
    ) AS item ON true
    WHERE documents.id > %(after)s
) AS listed
WHERE %(state)s::text IS NULL OR state = %(state)s
ORDER BY id
LIMIT %(limit)s
