"""Where in its chunk a lexeme stands: highlights of a text are read, and it is not analysed in a search."""

from store.migrations.sql_file import execute_sql_file

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    execute_sql_file("0007_places.sql")
