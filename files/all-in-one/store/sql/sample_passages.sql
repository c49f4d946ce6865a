-- Spread over the table; the same ones each time.
SELECT documents.title, chunks.content, chunks.passage_hash, chunks.embedding::text AS vector
FROM {chunks} AS chunks
JOIN documents ON documents.id = chunks.document_id
ORDER BY hashint8(chunks.id)
LIMIT %(sample)s
