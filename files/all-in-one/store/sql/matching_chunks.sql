WITH best AS (
    SELECT chunk_id,
           sum(weight * occurrences * (%(saturation)s + 1)
               / (occurrences + %(saturation)s * (1 - %(length_weight)s + %(length_weight)s * length / %(mean_length)s))
           )::float8 AS score
    FROM unnest(%(lexemes)s::text[], %(weights)s::float8[]) AS wanted (lexeme, weight)
    JOIN {lexemes} AS lexemes USING (lexeme)
    WHERE {allowed}
    GROUP BY chunk_id
    ORDER BY score DESC, chunk_id
    LIMIT %(limit)s
)
SELECT chunk_id AS id, document_id, {latin} AS latin, score, vector_send(embedding) AS vector
FROM best
JOIN {chunks} ON id = chunk_id
ORDER BY score DESC, id
