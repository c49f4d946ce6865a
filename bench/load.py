"""Work for the box while something else is measured. What it ingests, it removes."""

import itertools
import threading
import time
from types import TracebackType
from typing import Any
from urllib.parse import quote

from bench.client import Client
from bench.texts import LANGUAGES, TextMaker

BULK_CLIENTS = 2
DOCUMENTS = 60
PARTS, PART_TOKENS = 6, 400
SETTLE = 3.0  # seconds until the work is under way
POLL = 1.0
GONE_WITHIN = 600.0


class BulkEmbedding:
    """Two clients that embed the texts again and again, each time with a number that makes them new to the cache."""

    def __init__(self, client: Client, texts: list[str]) -> None:
        self._client = client
        self._texts = texts
        self._stop = threading.Event()
        self._numbers = itertools.count(int(time.time()) * 1000)
        self._done = 0
        self._failed: list[Exception] = []
        self._threads = [threading.Thread(target=self._embed) for _ in range(BULK_CLIENTS)]

    def _embed(self) -> None:
        try:
            while not self._stop.is_set():
                number = next(self._numbers)
                self._client.embed([f"{number} {text}" for text in self._texts], "passage")
                self._done += 1
        except Exception as error:
            self._failed.append(error)

    def done(self) -> str:
        """What was done while it ran; raises what stopped it."""
        if self._failed:
            raise self._failed[0]
        return f"{BULK_CLIENTS} clients, {len(self._texts)} texts a request, {self._done} requests answered meanwhile"

    def __enter__(self) -> "BulkEmbedding":
        for thread in self._threads:
            thread.start()
        time.sleep(SETTLE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


class Ingestion:
    """Long documents for the worker, deleted afterwards, also when the measurement failed."""

    def __init__(self, client: Client, maker: TextMaker) -> None:
        self._client = client
        run = int(time.time())
        self._documents = [
            {"id": f"bench-{run}-{number}", "title": f"bench {number}", "text": _long_text(maker, number)}
            for number in range(DOCUMENTS)
        ]
        self._job = ""

    def done(self) -> str:
        """How far the worker is. RuntimeError when it had nothing left to do: then nothing was measured beside it."""
        status = self._status()
        if status["status"] not in ("queued", "running"):
            raise RuntimeError(
                f"the worker had finished all {DOCUMENTS} documents before the measurement ended "
                f"(job {self._job}: {status['status']}): raise DOCUMENTS in bench/load.py"
            )
        return f"{status['done']} of {DOCUMENTS} long documents ingested meanwhile"

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = self._client.call("GET", f"/jobs/{self._job}")
        return status

    def __enter__(self) -> "Ingestion":
        self._job = self._client.call("POST", "/documents", self._documents)["job"]
        deadline = time.monotonic() + GONE_WITHIN
        while self._status()["status"] == "queued" and time.monotonic() < deadline:
            time.sleep(POLL)
        time.sleep(SETTLE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for document in self._documents:
            self._client.call("DELETE", f"/documents/{quote(document['id'], safe='')}")
        deadline = time.monotonic() + GONE_WITHIN
        while self._client.call("GET", "/health")["queue"].get("queued") and time.monotonic() < deadline:
            time.sleep(POLL)


def _long_text(maker: TextMaker, number: int) -> str:
    return "\n\n".join(maker.cut(PART_TOKENS, LANGUAGES[(number + part) % 2]) for part in range(PARTS))
