-- `recent` documents were indexed within the last `recent_seconds`.
SELECT count(*) AS documents,
       count(indexed.document_id) AS done,
       count(*) FILTER (WHERE indexed.indexed_at > now() - make_interval(secs => %(window)s)) AS recent,
       extract(epoch FROM now() - min(indexed.indexed_at)
           FILTER (WHERE indexed.indexed_at > now() - make_interval(secs => %(window)s)))::float8 AS recent_seconds,
       (SELECT count(*) FROM items WHERE generation_id = %(generation)s AND state = 'parked') AS parked
FROM documents
LEFT JOIN indexed
    ON indexed.document_id = documents.id
    AND indexed.generation_id = %(generation)s
    AND indexed.content_hash = documents.content_hash
