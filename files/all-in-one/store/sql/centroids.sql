SELECT latin, avg(embedding)::text AS centroid
FROM (
    SELECT embedding, {latin} AS latin
    FROM {chunks} TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (1)
) AS sampled
GROUP BY latin
HAVING count(*) >= %(least)s
