-- Generations made from now on have their indexes from store/sql/create_generation.sql. 100,000 chunks take some minutes,
-- while searches go on; writers wait. The version before reads the generation on, comparing all vectors.
SET LOCAL statement_timeout = 0;
DO $$
DECLARE
    generation integer;
    latin text := 'octet_length(content) * 2 < length(content) * 3';
    old text;
BEGIN
    FOR generation IN SELECT id FROM generations LOOP
        EXECUTE format(
            'CREATE INDEX ON generation_%%s_chunks USING hnsw (embedding vector_ip_ops)'
            ' WITH (m = 24, ef_construction = 200) WHERE %%s', generation, latin);
        EXECUTE format(
            'CREATE INDEX ON generation_%%s_chunks USING hnsw (embedding vector_ip_ops)'
            ' WITH (m = 24, ef_construction = 200) WHERE NOT (%%s)', generation, latin);
    END LOOP;
    -- Last, since it keeps searches waiting.
    FOR old IN
        SELECT indexname FROM pg_indexes JOIN generations ON tablename = format('generation_%%s_chunks', id)
        WHERE indexdef LIKE '%%USING hnsw%%' AND indexdef NOT LIKE '%%WHERE%%'
    LOOP
        EXECUTE format('DROP INDEX %%I', old);
    END LOOP;
END
$$;
