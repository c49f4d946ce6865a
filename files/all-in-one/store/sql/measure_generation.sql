SELECT pg_total_relation_size({chunks_name}) + pg_total_relation_size({lexemes_name})
           + pg_total_relation_size({frequencies_name}) AS bytes,
       (SELECT count(*) FROM documents) AS documents,
       (SELECT coalesce(sum(octet_length(text)), 0)::bigint FROM documents) AS text_bytes,
       (SELECT count(*) FROM indexed WHERE generation_id = {generation}) AS indexed
