-- Generations made from now on have the column from store/sql/create_generation.sql.
DO $$
DECLARE
    generation integer;
BEGIN
    FOR generation IN SELECT id FROM generations LOOP
        EXECUTE format('ALTER TABLE generation_%%s_chunks ADD COLUMN passage_hash bytea', generation);
        EXECUTE format('CREATE INDEX ON generation_%%s_chunks (passage_hash)', generation);
    END LOOP;
END
$$;
