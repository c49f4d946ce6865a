"""Where the database is, and connections to it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psycopg import Connection
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

from store.errors import StoreError

Database = Connection[DictRow]
Pool = ConnectionPool[Database]

CONNECT_TIMEOUT = 10  # seconds
PATIENCE = 3  # seconds a request waits for a connection of the pool
STATEMENT_TIMEOUT = 30_000  # milliseconds; a statement of this service that takes longer has gone wrong


def conninfo(environment: Mapping[str, str] = os.environ) -> str:
    """libpq connection string from DATABASE_HOST, _PORT, _NAME, _USER and DATABASE_PASSWORD_FILE."""
    return make_conninfo(
        host=environment.get("DATABASE_HOST", "postgres"),
        port=environment.get("DATABASE_PORT", "5432"),
        dbname=environment.get("DATABASE_NAME", "onebox"),
        user=environment.get("DATABASE_USER", "onebox"),
        password=_password(environment.get("DATABASE_PASSWORD_FILE", "/run/secrets/postgres_password")),
        connect_timeout=CONNECT_TIMEOUT,
        application_name="onebox",
        options=f"-c statement_timeout={STATEMENT_TIMEOUT}",
    )


def connect(where: str) -> Database:
    """One connection that commits per statement; open a `transaction()` for more."""
    return Connection.connect(where, autocommit=True, row_factory=dict_row)


def open_pool(where: str, *, size: int) -> Pool:
    """A pool of such connections that opens in the background, so that the app starts while the database does."""
    kwargs: dict[str, Any] = {"autocommit": True, "row_factory": dict_row}
    return ConnectionPool(
        where,
        connection_class=Connection[DictRow],
        kwargs=kwargs,
        min_size=1,
        max_size=size,
        timeout=PATIENCE,
        # After that it tries again at the next request, instead of at ever longer intervals.
        reconnect_timeout=PATIENCE,
        check=ConnectionPool.check_connection,
        open=True,
        name="onebox",
    )


def _password(file: str) -> str:
    try:
        password = Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StoreError(
            f"DATABASE_PASSWORD_FILE {file} cannot be read ({error.strerror}); mount the secret there."
        ) from None
    if not password:
        raise StoreError(f"DATABASE_PASSWORD_FILE {file} is empty; write the database password into it.")
    return password
