INSERT INTO {chunks} (document_id, ordinal, start_offset, end_offset, content, tokens, passage_hash, embedding)
SELECT %(document)s, position - 1, start_offset, end_offset, content, tokens, passage_hash, embedding::vector
FROM unnest(%(starts)s::integer[], %(ends)s::integer[], %(contents)s::text[], %(tokens)s::integer[],
            %(hashes)s::bytea[], %(vectors)s::text[])
    WITH ORDINALITY AS given (start_offset, end_offset, content, tokens, passage_hash, embedding, position)
