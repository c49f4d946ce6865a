"""Revisions are written in SQL: each has a file in migrations/sql."""

from pathlib import Path

from alembic import op

FOLDER = Path(__file__).parent / "sql"


def execute_sql_file(name: str) -> None:
    """Run the statements of migrations/sql/NAME in the revision's transaction."""
    op.get_bind().exec_driver_sql((FOLDER / name).read_text(encoding="utf-8"))
