"""What was embedded for a chunk, by its hash, so that the same passage is never embedded twice in a generation."""

from store.migrations.sql_file import execute_sql_file

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    execute_sql_file("0002_passage_hashes.sql")
