-- All of them measured: an index finds few among many others only by looking at the others.
WITH allowed AS MATERIALIZED (
    SELECT id FROM documents WHERE {allowed}
),
measured AS MATERIALIZED (
    SELECT chunks.id, chunks.document_id, chunks.embedding <#> %(vector)s::vector AS distance
    FROM {chunks} AS chunks
    JOIN allowed ON allowed.id = chunks.document_id
    WHERE {script}
)
SELECT id, document_id, -distance AS similarity FROM measured ORDER BY distance, id LIMIT %(limit)s
