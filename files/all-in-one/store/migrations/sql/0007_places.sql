-- Generations made from now on have the column from store/sql/create_generation.sql. Those that there are get it filled as
-- their documents change.
DO $$
DECLARE
    generation integer;
BEGIN
    FOR generation IN SELECT id FROM generations LOOP
        EXECUTE format('ALTER TABLE generation_%%s_lexemes ADD COLUMN places int4multirange', generation);
    END LOOP;
END
$$;
