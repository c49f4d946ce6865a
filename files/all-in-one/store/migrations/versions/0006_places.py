"""Where in its chunk a lexeme stands: highlights are read, and no result is analysed in a search."""

from store.migrations.sql_file import execute_sql_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    execute_sql_file("0006_places.sql")
