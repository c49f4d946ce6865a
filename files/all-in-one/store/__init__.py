"""Everything that is true about the box's documents: PostgreSQL, through psycopg. Used by app and worker alike."""
