WITH gone AS (
    DELETE FROM {chunks} WHERE document_id = %(document)s RETURNING id
),
gone_lexemes AS (
    SELECT lexeme, count(*) AS chunks, sum(occurrences) AS occurrences
    FROM {lexemes}
    WHERE chunk_id IN (SELECT id FROM gone)
    GROUP BY lexeme
),
fewer AS (
    UPDATE {frequencies} AS frequencies
    SET chunks = frequencies.chunks - gone_lexemes.chunks
    FROM gone_lexemes
    WHERE frequencies.lexeme = gone_lexemes.lexeme
),
not_indexed AS (
    DELETE FROM indexed WHERE document_id = %(document)s AND generation_id = %(generation)s
)
UPDATE generations
SET chunks = generations.chunks - (SELECT count(*) FROM gone),
    lexemes = generations.lexemes - coalesce((SELECT sum(occurrences) FROM gone_lexemes), 0)
WHERE id = %(generation)s
