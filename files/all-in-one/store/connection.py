"""Where the database is, and connections to it."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psycopg import Connection, OperationalError
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo
from psycopg.errors import DiskFull
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from store.errors import BusyError, StoreError

Database = Connection[DictRow]

CONNECT_TIMEOUT = 10  # seconds
PATIENCE = 3  # seconds a request waits for a connection of the pool
KEPT_OPEN = 2  # connections of a pool without work: what one search takes
STATEMENT_TIMEOUT = 30_000  # milliseconds; a statement of this service that takes longer has gone wrong
# Seconds after which the server would have said so itself: it is paused, or its disk hangs.
ANSWER_TIMEOUT = STATEMENT_TIMEOUT / 1000 + 5
# Milliseconds after which a connection whose packets nobody takes is given up; the kernel would try for many minutes.
SEND_TIMEOUT = 3_000
SILENCE = 5  # seconds without a packet after which the kernel asks, at most three times, whether anybody is there


class _Connection(Connection[DictRow]):
    """Closes itself where the server takes a statement and never answers, which no setting of TCP notices."""

    patience: float | None = None  # seconds; ANSWER_TIMEOUT without

    def wait[T](self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        limit = timeout if timeout is not None else self.patience or ANSWER_TIMEOUT
        try:
            return super().wait(gen, interval, limit)
        except OperationalError:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            # What the server would still answer belongs to no statement any more.
            self.close()
            raise OperationalError(f"the server took a statement and did not answer within {limit:.0f} s") from None


class Pool(ConnectionPool[_Connection]):
    """Connections for requests, each seen to work before it is handed out."""

    _handed_out_at = float("-inf")

    def getconn(self, timeout: float | None = None) -> _Connection:
        """PoolTimeout when the database does not answer, its BusyError when others got a connection meanwhile."""
        asked = time.monotonic()
        try:
            connection = super().getconn(timeout)
        except PoolTimeout as error:
            if self._handed_out_at > asked:
                raise BusyError(*error.args) from None
            raise
        self._handed_out_at = time.monotonic()
        return connection

    @staticmethod
    def check_connection(conn: _Connection) -> None:
        """OperationalError where the server does not answer for as long as a request waits."""
        conn.patience = PATIENCE
        try:
            ConnectionPool.check_connection(conn)
        finally:
            conn.patience = None


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
        tcp_user_timeout=SEND_TIMEOUT,
        keepalives_idle=SILENCE,
        keepalives_interval=SILENCE,
        keepalives_count=3,
        options=f"-c statement_timeout={STATEMENT_TIMEOUT}",
    )


def connect(where: str) -> Database:
    """One connection that commits per statement; open a `transaction()` for more.

    DiskFull, as from a statement, where the server has no room for the file that a first connection makes it write.
    """
    try:
        return _Connection.connect(where, autocommit=True, row_factory=dict_row)
    except OperationalError as error:
        # An error before there is a connection carries no SQLSTATE, and the operating system words this one.
        if "No space left on device" in str(error):
            raise DiskFull(*error.args) from None
        raise


def open_pool(where: str, *, size: int) -> Pool:
    """A pool of such connections that opens in the background, so that the app starts while the database does."""
    kwargs: dict[str, Any] = {"autocommit": True, "row_factory": dict_row}
    return Pool(
        where,
        connection_class=_Connection,
        kwargs=kwargs,
        min_size=min(size, KEPT_OPEN),
        max_size=size,
        timeout=PATIENCE,
        # After that it tries again at the next request, instead of at ever longer intervals.
        reconnect_timeout=PATIENCE,
        check=Pool.check_connection,
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
