-- All of them measured: an index finds few among many others only by looking at the others.
WITH allowed AS MATERIALIZED (
    SELECT id FROM documents WHERE {allowed}
),
measured AS MATERIALIZED (
    SELECT chunks.id, chunks.document_id, {latin} AS latin, chunks.embedding <#> %(vector)s::vector AS distance
    FROM {chunks} AS chunks
    JOIN allowed ON allowed.id = chunks.document_id
    WHERE ({latin}) = ANY(%(scripts)s)
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY latin ORDER BY distance, id) AS rank FROM measured
)
SELECT id, document_id, latin, -distance AS similarity FROM ranked WHERE rank <= %(limit)s ORDER BY distance, id
