"""Keeps an item's lease alive while the worker computes: from a thread, since inference lets go of the GIL."""

import threading
from types import TracebackType

import psycopg

from app.log import log
from store import jobs
from store.connection import connect


class LeaseKeeper:
    """A context in which the lease is renewed. `held` turns False once the item belongs to somebody else."""

    def __init__(self, database: str, item_id: int, worker: str, *, seconds: float) -> None:
        self._database = database
        self._item_id = item_id
        self._worker = worker
        self._seconds = seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_done, name="lease", daemon=True)
        self.held = True

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _renew_until_done(self) -> None:
        while self.held and not self._done.wait(self._seconds / 4):
            try:
                with connect(self._database) as database:
                    self.held = jobs.renew(database, self._item_id, self._worker, lease_seconds=self._seconds)
            except psycopg.OperationalError as error:
                # The next round may reach it; if none does, the lease runs out and the result is refused.
                log("lease_not_renewed", "warning", item=self._item_id, error=type(error).__name__)
