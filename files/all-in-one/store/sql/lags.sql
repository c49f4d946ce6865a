-- Whether a document that is found today would not be found after the switch, not even for a moment.
SELECT EXISTS (
    SELECT
    FROM items
    JOIN indexed
        ON indexed.document_id = items.document_id
        AND indexed.generation_id = %(serving)s
        AND indexed.content_hash = items.content_hash
    LEFT JOIN indexed AS there
        ON there.document_id = items.document_id
        AND there.generation_id = items.generation_id
        AND there.content_hash = items.content_hash
    WHERE items.generation_id = %(generation)s AND items.state IN ('queued', 'running', 'parked')
        AND there.document_id IS NULL
) AS lags
