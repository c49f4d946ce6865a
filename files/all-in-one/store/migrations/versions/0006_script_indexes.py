"""An index of the vectors for each script: a search in one found its way to the texts of one language only."""

from store.migrations.sql_file import execute_sql_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    execute_sql_file("0006_script_indexes.sql")
