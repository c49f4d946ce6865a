"""An index for filters on metadata."""

from store.migrations.sql_file import execute_sql_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    execute_sql_file("0004_metadata_index.sql")
