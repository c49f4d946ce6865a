"""Waiting for what other threads and processes do."""

import threading
import time
from collections.abc import Callable

from store.connection import Database, connect

PATIENCE = 60.0  # seconds


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once the condition holds. AssertionError when it does not within `seconds`."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.02)


def locked(database: Database) -> int:
    """How many statements wait for a lock that another transaction holds."""
    row = database.execute("SELECT count(*) AS number FROM pg_locks WHERE NOT granted").fetchone()
    assert row is not None
    return int(row["number"])


def in_thread(database_url: str, work: Callable[[Database], object]) -> tuple[threading.Thread, list[object]]:
    """A thread, not started yet, that does it over a connection of its own; and what came of it."""
    outcome: list[object] = []

    def run() -> None:
        with connect(database_url) as connection:
            outcome.append(work(connection))

    return threading.Thread(target=run), outcome
