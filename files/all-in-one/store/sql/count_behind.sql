-- Documents that one generation holds as they are now, and the other does not.
SELECT count(*) AS behind
FROM documents
JOIN indexed AS held
    ON held.document_id = documents.id
    AND held.generation_id = %(serving)s
    AND held.content_hash = documents.content_hash
LEFT JOIN indexed AS there
    ON there.document_id = documents.id
    AND there.generation_id = %(generation)s
    AND there.content_hash = documents.content_hash
WHERE there.document_id IS NULL
