-- A text whose characters take more than one byte each, nearly all, is not in Latin script.
SELECT latin, avg(embedding)::text AS centroid
FROM (
    SELECT embedding, octet_length(content) < 1.5 * length(content) AS latin
    FROM {chunks} TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (1)
) AS sampled
GROUP BY latin
HAVING count(*) >= %(least)s
