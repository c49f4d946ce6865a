"""Clients that ask all at once, each on a connection of its own, and what they were answered."""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import outside

PAUSE = 0.1  # seconds that a refused client waits, whatever it is told: less than Retry-After asks for


@dataclass
class Answers:
    """`seconds` of each answered search, `refused` by what Retry-After said, and whatever else happened."""

    duration: float  # seconds
    seconds: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    reranked: Counter[str] = field(default_factory=Counter)  # by the reason

    def percentile(self, percent: int) -> float:
        """Seconds."""
        return statistics.quantiles(self.seconds, n=100)[percent - 1]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reranked.most_common())
        return (
            f"{len(self.seconds)} answered in {self.duration:.0f} s ({len(self.seconds) / self.duration:.1f}/s), "
            f"p50 {self.percentile(50) * 1000:.0f} ms, p95 {self.percentile(95) * 1000:.0f} ms, "
            f"slowest {max(self.seconds) * 1000:.0f} ms; {self.refused.total()} refused; reranking: {reasons}"
        )


def search(key: str, clients: int, seconds: float, query_of: Callable[[int], str], **options: Any) -> Answers:
    """`clients` search one query after the other for so long; `query_of(n)` is the n-th of all of them together."""
    answers = Answers(seconds)
    numbers = itertools.count()
    end = time.monotonic() + seconds
    guard = threading.Lock()

    def client() -> None:
        connection = _connect()
        while time.monotonic() < end:
            with guard:
                query = query_of(next(numbers))
            started = time.perf_counter()
            try:
                status, headers, body = _ask(
                    connection, key, "/search", json.dumps({"query": query, **options}).encode()
                )
            except (OSError, HTTPException) as error:
                with guard:
                    answers.unexpected.append(f"{type(error).__name__}: {error}")
                connection.close()
                connection = _connect()
                continue
            with guard:
                _note(answers, status, headers, body, time.perf_counter() - started)
            if status != 200:
                time.sleep(PAUSE)
        connection.close()

    _run(client, clients)
    return answers


def send(key: str, clients: int, seconds: float, body: bytes) -> Counter[str]:
    """`clients` send the same documents for so long; how often they were answered what: status and code."""
    told: Counter[str] = Counter()
    end = time.monotonic() + seconds
    guard = threading.Lock()

    def client() -> None:
        while time.monotonic() < end:
            connection = _connect()
            try:
                status, _, answer = _ask(connection, key, "/documents", body)
                outcome = f"{status} {answer['error']['code']}" if status >= 400 else f"{status}"
            except (OSError, HTTPException) as error:
                outcome = type(error).__name__
            connection.close()
            with guard:
                told[outcome] += 1
            time.sleep(PAUSE)

    _run(client, clients)
    return told


def _run(client: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=client) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _connect() -> HTTPConnection:
    address = urlsplit(outside.URL)
    assert address.hostname
    return HTTPConnection(address.hostname, address.port, timeout=60)


def _ask(connection: HTTPConnection, key: str, path: str, body: bytes) -> tuple[int, dict[str, str], Any]:
    """(status, headers with names in lower case, decoded JSON)."""
    connection.request("POST", path, body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, json.loads(content)


def _note(answers: Answers, status: int, headers: dict[str, str], body: Any, seconds: float) -> None:
    if status == 200 and body["results"]:
        answers.seconds.append(seconds)
        answers.reranked[body["rerank"]["reason"]] += 1
    elif status == 429 and int(headers.get("retry-after", "0")) > 0:
        answers.refused[headers["retry-after"]] += 1
    else:
        answers.unexpected.append(f"{status}: {body}")
