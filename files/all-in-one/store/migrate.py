"""Bring the database's schema to this version of the code. Revisions only add; a removal comes a version later."""

import time
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool

from store.connection import connect
from store.errors import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x6F6E65626F78  # "onebox": one migration at a time


def migrate(where: str) -> tuple[str | None, str]:
    """Run all pending revisions, each on its own; returns (revision found, revision now).

    StoreError if the database is newer.
    """
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(where), poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({LOCK})")
        connection.commit()
        found = _current(connection)
        wanted = _known_head(found)
        if found != wanted:
            command.upgrade(_config(connection), "head")
            connection.commit()
        return found, wanted


def newest() -> str:
    """The revision this version of the code brings a database to."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def wait_for_database(where: str, *, seconds: float) -> None:
    """Return once the database answers. StoreError after `seconds`, or at once if it refuses the password."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            with connect(where) as database:
                database.execute("SELECT 1")
                return
        except psycopg.OperationalError as error:
            if "authentication failed" in str(error):
                raise StoreError(
                    "The database refuses the password of DATABASE_PASSWORD_FILE; "
                    "it keeps the one it was created with, put that back."
                ) from None
            if time.monotonic() > give_up:
                raise StoreError(f"The database does not answer after {seconds:.0f} s ({_last_line(error)}).") from None
            time.sleep(0.5)


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def _current(connection: Connection) -> str | None:
    exists = connection.exec_driver_sql("SELECT to_regclass('alembic_version')").scalar()
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() if exists else None
    connection.commit()
    return found


def _known_head(found: str | None) -> str:
    scripts = ScriptDirectory.from_config(_config())
    head = newest()
    try:
        if found is not None:
            scripts.get_revision(found)
    except (ResolutionError, CommandError):
        raise StoreError(
            f"The database is at revision {found}, which this version does not know (its newest is {head}); "
            "deploy the version that made it, or a newer one."
        ) from None
    return head


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
