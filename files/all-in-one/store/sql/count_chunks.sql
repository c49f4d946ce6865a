-- Chunks with a vector, and as many as the documents were cut into.
SELECT (SELECT count(*) FROM {chunks} WHERE vector_norm(embedding) > 0) AS vectors,
       (SELECT coalesce(sum(chunks), 0)::bigint FROM indexed WHERE generation_id = {generation}) AS chunks
