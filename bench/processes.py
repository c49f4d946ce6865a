"""A method in a process of its own, and what is asked of it there."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from types import TracebackType
from typing import Any

from bench.system import cpu_seconds, memory, peak_mb, timed

_method: Any = None  # of this process


@contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    """These variables for what is started meanwhile: the C library reads its own as a process starts."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment:
            os.environ.pop(name)
        os.environ.update(before)


def _nothing() -> None:
    """Has the process started, and its method loaded."""


def _load(make: Callable[..., Any], arguments: dict[str, Any]) -> None:
    global _method  # noqa: PLW0603  (a pool's process has no other place for what it keeps)
    _method = make(**arguments)


class Worker:
    """One process that keeps one method loaded, and does one thing at a time."""

    def __init__(
        self, make: Callable[..., Any], *, environment: Mapping[str, str] | None = None, **arguments: Any
    ) -> None:
        """`make(**arguments)` gives the method, with these variables besides those of this process."""
        # Spawned, not forked: threads and memory of this process are none of the method's.
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _load, (make, arguments))
        with _set(environment or {}):
            self._pool.submit(_nothing).result()

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of `function(method, *arguments)` over there."""
        return self._pool.submit(_call, function, arguments).result()

    def close(self) -> None:
        self._pool.shutdown()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(_method, *arguments)


def embed(method: Any, texts: Sequence[str], batch_size: int | None = None) -> dict[str, Any]:
    """{seconds, cpu_seconds, vectors} of embedding all texts."""
    cpu, start = cpu_seconds(), time.perf_counter()
    vectors = method.passages(texts, batch_size)
    return {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu, "vectors": vectors}


def embed_only(method: Any, texts: Sequence[str]) -> None:
    """Embed, and bring nothing back: results on their way to another process would count as memory."""
    method.passages(texts)


def one_by_one(method: Any, texts: Sequence[str]) -> Any:
    """Vectors of the texts embedded alone, each as a passage."""
    return [method.passages([text])[0] for text in texts]


def ask(method: Any, queries: Sequence[str]) -> list[float]:
    """Seconds that each short query took."""
    return [timed(partial(method.query, query)) for query in queries]


def ask_beside_bulk(
    method: Any, queries: Sequence[str], bulk: Sequence[str], batch_size: int | None, most_seconds: float
) -> list[float]:
    """As `ask`, while another thread embeds `bulk` again and again; stops after `most_seconds`."""
    stop, begun = threading.Event(), threading.Event()

    def embed_for_ever() -> None:
        while not stop.is_set():
            begun.set()
            method.passages(bulk, batch_size)

    thread = threading.Thread(target=embed_for_ever, name="bulk")
    thread.start()
    try:
        begun.wait()
        time.sleep(0.5)
        deadline = time.monotonic() + most_seconds
        seconds = []
        for query in queries:
            seconds.append(timed(partial(method.query, query)))
            if time.monotonic() > deadline:
                break
            # Queries come when people ask, not as soon as the last is answered.
            time.sleep(0.02)
        return seconds
    finally:
        stop.set()
        thread.join()


def rerank(method: Any, query: str, candidates: Sequence[str]) -> dict[str, Any]:
    """{seconds, cpu_seconds, scores} of scoring all candidates."""
    cpu, start = cpu_seconds(), time.perf_counter()
    scores = method.scores(query, candidates)
    return {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu, "scores": scores}


def resident(_: Any) -> dict[str, float]:
    return memory()


def peak(_: Any) -> float:
    return peak_mb()
