WITH given AS (
    SELECT *
    FROM unnest(%(ordinals)s::integer[], %(lexemes)s::text[], %(occurrences)s::integer[], %(lengths)s::integer[],
                %(places)s::int4multirange[])
        AS given (ordinal, lexeme, occurrences, length, places)
),
counted AS (
    INSERT INTO {frequencies} AS frequencies (lexeme, chunks)
    SELECT lexeme, count(*) FROM given GROUP BY lexeme
    ON CONFLICT (lexeme) DO UPDATE SET chunks = frequencies.chunks + excluded.chunks
)
INSERT INTO {lexemes} (lexeme, chunk_id, occurrences, length, places)
SELECT given.lexeme, chunks.id, least(given.occurrences, 32767), given.length, given.places
FROM given
JOIN {chunks} AS chunks ON chunks.document_id = %(document)s AND chunks.ordinal = given.ordinal
