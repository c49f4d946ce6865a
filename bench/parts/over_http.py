"""Part `box`: what a client of the running box waits, idle, beside bulk embedding in the app, and beside ingestion."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.box import Box
from bench.client import Client
from bench.figures import latency
from bench.inputs import LONG_TOKENS, Inputs
from bench.load import BulkEmbedding, Ingestion
from bench.system import timed
from modelbuild.progress import say

PROBES = 120
SEARCHES = 60
PAUSE = 0.05  # seconds between two questions
LONGEST = 45.0  # seconds of asking, beside work


def measure(box: Box, inputs: Inputs, rounds: int) -> dict[str, Any]:
    """Latencies by situation (idle, beside bulk embedding, beside ingestion), and the stages of a search."""
    client = Client(box.url(), box.key())
    health = client.call("GET", "/health")
    asked = distinct(inputs.queries)
    # Opens connections and touches what a start left cold.
    for _ in range(10):
        client.embed([next(asked)], "query")
    long_texts = [inputs.maker.cut(LONG_TOKENS, language) for language in ("ko", "en")] * 8
    bulk = (inputs.mixed[: len(inputs.mixed) - len(long_texts)] + long_texts)[::-1]
    found: dict[str, Any] = {"documents": health.get("documents"), "threads": health["inference"]["threads"]}
    found["idle"] = _probe(client, asked, "idle")
    found["search"] = _stages(client, asked)
    with BulkEmbedding(client, bulk) as embedding, _reported(found, "beside_bulk", embedding):
        found["beside_bulk"] = _probe(client, asked, "beside bulk embedding in the app")
    with Ingestion(client, inputs.maker) as ingestion, _reported(found, "beside_ingestion", ingestion):
        found["beside_ingestion"] = _probe(client, asked, "beside ingestion in the worker")
    return found


def distinct(queries: list[str]) -> Iterator[str]:
    """The queries again and again, each with a number that makes it new to every cache, also on another day."""
    start = int(time.time()) % 100_000
    for number, query in zip(itertools.count(start), itertools.cycle(queries), strict=False):
        yield f"{query} {number}"


@contextmanager
def _reported(found: dict[str, Any], name: str, work: BulkEmbedding | Ingestion) -> Iterator[None]:
    """Add how much of the work was done meanwhile: without it the latency would say nothing."""
    yield
    found[name]["work"] = work.done()


def _probe(client: Client, asked: Iterator[str], situation: str) -> dict[str, Any]:
    """Latency of one short embedding, and of one search without reranking, asked in turns."""
    embeds, searches = [], []
    deadline = time.monotonic() + LONGEST
    for _ in range(PROBES // 2):
        embeds.append(_after_a_pause(lambda: client.embed([next(asked)], "query")))
        searches.append(_after_a_pause(lambda: client.search(next(asked), rerank=False)))
        if time.monotonic() > deadline:
            break
    found: dict[str, Any] = {
        "embedding": latency(embeds),
        "search": latency(searches),
        "asked_again": client.take_asked_again(),
    }
    told = f"p50 {found['embedding']['p50_ms']:.0f} ms, p95 {found['embedding']['p95_ms']:.0f} ms"
    say("box", f"one short query, {situation}: {told}")
    return found


def _after_a_pause(call: Callable[[], Any]) -> float:
    time.sleep(PAUSE)
    return timed(call)


def _stages(client: Client, asked: Iterator[str]) -> dict[str, Any]:
    """Median milliseconds of each stage of a whole search, and what the client waited."""
    timings, waited = [], []
    for _ in range(SEARCHES):
        start = time.perf_counter()
        answer = client.search(next(asked), rerank=True)
        waited.append(time.perf_counter() - start)
        timings.append(answer["timings_ms"])
    stages = {name: round(statistics.median(timing[name] for timing in timings), 2) for name in timings[0]}
    say("box", "a search: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in stages.items()))
    return {"stages_ms": stages, **latency(waited)}
