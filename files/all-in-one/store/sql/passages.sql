SELECT chunks.id, chunks.document_id, documents.title, chunks.content AS text,
       chunks.start_offset AS start, chunks.end_offset AS end, documents.metadata, documents.source,
       (SELECT CASE WHEN bool_or(places IS NULL) THEN NULL ELSE coalesce(range_agg(places), '{{}}') END
        FROM {lexemes}
        WHERE lexeme = ANY(%(lexemes)s) AND chunk_id = chunks.id) AS highlights
FROM {chunks} AS chunks
JOIN documents ON documents.id = chunks.document_id
WHERE chunks.id = ANY(%(chunks)s)
