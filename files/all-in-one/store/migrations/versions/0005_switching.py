"""Generations that take each other's place."""

from store.migrations.sql_file import execute_sql_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    execute_sql_file("0005_switching.sql")
