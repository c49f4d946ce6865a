"""Part `methods`: the ways to embed side by side on the same texts, taking turns so that noise meets all alike."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench import embedders, graphs, processes
from bench.box import Box, manifest
from bench.figures import cosines, latency, speed
from bench.inputs import Inputs
from bench.processes import Worker
from modelbuild.progress import say

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
QUERIES_A_ROUND = 40
QUERIES_BESIDE_BULK = 60
BESIDE_BULK_SECONDS = 20.0
REFERENCE = "original, float"


@dataclass(frozen=True)
class Entry:
    """A method as it is measured: how to load it, its batch size where it has one, and variables that it runs with."""

    make: Callable[..., Any]
    arguments: dict[str, Any]
    batch_size: int | None = None
    environment: dict[str, str] = field(default_factory=dict)


def measure(box: Box, inputs: Inputs, rounds: int) -> dict[str, Any]:
    """Figures by method: speed, latency, memory, and agreement with the float model."""
    entries = _entries(box)
    sweeps = _choose_batch_sizes(entries, inputs)
    workers = {name: _worker(entry) for name, entry in entries.items()}
    try:
        found = _throughput(entries, workers, inputs, rounds)
        _query_latency(entries, workers, inputs, rounds, found)
    finally:
        for worker in workers.values():
            worker.close()
    return {"rounds": rounds, "batch_sizes": sweeps, "methods": found}


def _entries(box: Box) -> dict[str, Entry]:
    original, prefixes = graphs.original_embedding(box), box.prefixes
    release = manifest(box.embedding)
    plain = {"tokenizer": box.tokenizer, "prefixes": prefixes}
    torch = {"snapshot": box.snapshot(box.embedding), "prefixes": prefixes}
    fast = {
        "folder": graphs.fastembed_folder(box),
        "file": release["file"],
        "dimension": release["dimension"],
        "prefixes": prefixes,
    }
    default = embedders.FastEmbed.DEFAULT_BATCH
    own, allocator = {"release": box.embedding}, box.allocator()
    return {
        "original": Entry(embedders.Original, {"graph": original / graphs.INT8, **plain}, embedders.DEFAULT_BATCH),
        REFERENCE: Entry(embedders.Original, {"graph": original / graphs.FLOAT, **plain}, embedders.DEFAULT_BATCH),
        "sentence-transformers": Entry(embedders.SentenceTransformers, torch),
        "fastembed, default batch": Entry(embedders.FastEmbed, fast, default),
        "fastembed, best batch": Entry(embedders.FastEmbed, fast),
        "onebox": Entry(embedders.Onebox, own, None, allocator),
        "onebox, one thread": Entry(embedders.Onebox, own | {"threads": 1}, None, allocator),
    }


def _worker(entry: Entry) -> Worker:
    return Worker(entry.make, environment=entry.environment, **entry.arguments)


def _choose_batch_sizes(entries: dict[str, Entry], inputs: Inputs) -> dict[str, dict[int, float]]:
    """Give the two that are measured at their best batch size that size; returns texts/s by size."""
    sweeps = {}
    for name in ("sentence-transformers", "fastembed, best batch"):
        entry = entries[name]
        # A process that is thrown away: large batches leave their mark on memory.
        with _worker(entry) as worker:
            worker.do(processes.embed, inputs.mixed[:32], 1)
            sweep = {}
            for size in BATCH_SIZES:
                sweep[size] = round(len(inputs.mixed) / worker.do(processes.embed, inputs.mixed, size)["seconds"], 2)
        best = max(sweep, key=lambda size: sweep[size])
        say("methods", f"{name}: batch size {best} is best, {sweep[best]:.0f} texts/s")
        sweeps[name] = sweep
        entries[name] = replace(entry, batch_size=best)
    return sweeps


def _throughput(
    entries: dict[str, Entry], workers: dict[str, Worker], inputs: Inputs, rounds: int
) -> dict[str, dict[str, Any]]:
    for name, worker in workers.items():
        worker.do(processes.embed, inputs.mixed[:32], entries[name].batch_size)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for turn in range(rounds):
        for name, worker in workers.items():
            runs[name].append(worker.do(processes.embed, inputs.mixed, entries[name].batch_size))
        told = ", ".join(f"{name} {len(inputs.mixed) / run[-1]['seconds']:.0f}" for name, run in runs.items())
        say("methods", f"texts/s, round {turn + 1} of {rounds}: {told}")
    # Alone, so that not even the float model's rounding depends on neighbours.
    reference = np.array(workers[REFERENCE].do(processes.one_by_one, inputs.mixed))
    return {
        name: {
            **speed(len(inputs.mixed), [run["seconds"] for run in done], [run["cpu_seconds"] for run in done]),
            "batch_size": entries[name].batch_size,
            "peak_mb": workers[name].do(processes.peak),
            "cosine": cosines(done[-1]["vectors"], reference),
        }
        for name, done in runs.items()
    }


def _query_latency(
    entries: dict[str, Entry],
    workers: dict[str, Worker],
    inputs: Inputs,
    rounds: int,
    found: dict[str, dict[str, Any]],
) -> None:
    """Add `idle` and `beside_bulk` of one short query to what was found."""
    idle: dict[str, list[float]] = {name: [] for name in workers}
    for turn in range(rounds):
        asked = _slice(inputs.queries, turn * QUERIES_A_ROUND, QUERIES_A_ROUND)
        for name, worker in workers.items():
            idle[name] += worker.do(processes.ask, asked)
    asked = _slice(inputs.queries, 0, QUERIES_BESIDE_BULK)
    for name, worker in workers.items():
        beside = worker.do(processes.ask_beside_bulk, asked, inputs.bulk, entries[name].batch_size, BESIDE_BULK_SECONDS)
        found[name] |= {"idle": latency(idle[name]), "beside_bulk": latency(beside)}
        times = f"{found[name]['idle']['p50_ms']:.1f} ms idle, p95 {found[name]['beside_bulk']['p95_ms']:.0f} ms"
        say("methods", f"one short query, {name}: {times} beside bulk work")


def _slice(queries: list[str], start: int, count: int) -> list[str]:
    """`count` queries from `start`, from the beginning again where they end."""
    return [queries[(start + index) % len(queries)] for index in range(count)]
