"""SQL kept in store/sql, with the table names of a generation filled in."""

from functools import cache
from pathlib import Path

from psycopg import sql

FOLDER = Path(__file__).parent / "sql"


def statement(name: str, **identifiers: sql.Composable) -> sql.Composed:
    """The statement of store/sql/NAME.sql; {placeholders} become the identifiers or literals given."""
    return sql.SQL(_text(name)).format(**identifiers)


@cache
def _text(name: str) -> str:
    return (FOLDER / f"{name}.sql").read_text(encoding="utf-8")
