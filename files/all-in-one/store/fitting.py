"""Whether disk and memory allow a second generation beside the one that serves: estimated before anything starts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from pipeline import footprint
from store import generations, wanted
from store.connection import Database
from store.generations import Generation
from store.statements import statement

FLOAT = 4  # bytes of a vector's element
COPIES = 2  # of each vector: in its row and in its index
# The index is filled row by row beside the log of what is written: what a build needs at its largest.
GROWTH = 1.5
# Of a text, where nothing is indexed yet to measure at: chunks, lexemes and their indexes without the vectors.
TEXT_GROWTH = 12
CHUNK_BYTES = 600  # of text in a chunk, about


@dataclass(frozen=True)
class Limits:
    """Bytes; None is not counted."""

    disk_free: int | None = None
    app: int | None = None
    worker: int | None = None


@dataclass(frozen=True)
class Report:
    """`why` is a sentence, None if it fits. `second` is whether a second generation is needed at all.

    `counted` are bytes by what was counted: {disk_needed, disk_free, app_needed, app_memory, worker_needed,
    worker_memory}, None for what is not known.
    """

    documents: int
    second: bool
    why: str | None
    counted: dict[str, int | None]


# Of a database that cannot even be asked.
FULL = Report(
    documents=0,
    second=True,
    why="The database has no room left on its disk: no second index fits (make room on the data disk).",
    counted={},
)


def check(
    database: Database, space: Mapping[str, Any], release: Path | None, limits: Limits, weights: int | None = None
) -> Report:
    """Whether an index of the embedding space can be made beside the one that serves.

    Values of `space` that are null are taken to be as they are. A model without the folder of its release is weighed by
    the bytes its file will have at least, its tokenizer left out, and not at all where those are not known either.
    """
    serving, documents = generations.active(database), generations.count_documents(database)
    counted: dict[str, int | None] = dict.fromkeys(
        ("disk_needed", "disk_free", "app_needed", "app_memory", "worker_needed", "worker_memory")
    )
    if serving is None or not documents or _is_there(database, space):
        return Report(documents, False, None, counted)
    dimension = int(space.get("dimension") or serving.dimension)
    app, worker = _memory(serving, release, weights)
    counted |= {
        "disk_needed": _disk(database, serving, dimension),
        "disk_free": limits.disk_free,
        "app_needed": app,
        "app_memory": limits.app,
        "worker_needed": worker,
        "worker_memory": limits.worker,
    }
    lacking = [
        f"{what} {footprint.megabytes(needed)} MB, of which there are {footprint.megabytes(there)} MB ({advice})"
        for what, needed, there, advice in (
            ("its vectors need about", counted["disk_needed"], limits.disk_free, "make room on the data disk"),
            ("two models in the app need about", app, limits.app, "raise stack_app_memory_mb"),
            ("two models in the worker need about", worker, limits.worker, "raise stack_worker_memory_mb"),
        )
        if needed is not None and there is not None and needed > there
    ]
    why = None
    if lacking:
        why = (
            f"{documents} documents are indexed by {serving.release}; a second index beside it does not fit: "
            f"{'; '.join(lacking)}."
        )
    return Report(documents, True, why, counted)


def _is_there(database: Database, space: Mapping[str, Any]) -> bool:
    """Whether some generation has vectors of that space, as far as it is known."""
    known = {name: value for name, value in space.items() if value is not None}
    return any({**one.space, **known} == one.space for one in generations.every(database))


def _disk(database: Database, serving: Generation, dimension: int) -> int:
    """Bytes that the second index will take, by what the first one takes."""
    names = {f"{name}_name": sql.Literal(table.as_string()) for name, table in serving.tables.items()}
    measure = statement("measure_generation", generation=sql.Literal(serving.id), **names)
    row = database.execute(measure).fetchone()
    assert row is not None
    if serving.chunks:
        difference = serving.chunks * (dimension - serving.dimension) * FLOAT * COPIES
        # Of documents that are still waiting nothing is stored yet.
        share = row["documents"] / max(1, row["indexed"])
        return math.ceil((row["bytes"] + difference) * max(1.0, share) * GROWTH)
    chunks = row["text_bytes"] // CHUNK_BYTES + row["documents"]
    return math.ceil((row["text_bytes"] * TEXT_GROWTH + chunks * dimension * FLOAT * COPIES) * GROWTH)


def _memory(serving: Generation, release: Path | None, weights: int | None) -> tuple[int | None, int | None]:
    """Bytes of (app, worker) with both models loaded; None where nothing is known of the new one."""
    if release is None and weights is None:
        return None, None
    present = next(wanted.embedding_candidates(serving))
    reranker = next(wanted.reranker_candidates())
    second = footprint.of(release, [present]) if release else footprint.without_tokenizer(weights or 0)
    models = footprint.of(present) + second
    reranking = footprint.of(reranker, [present, release] if release else [present])
    return footprint.APP + models + reranking, footprint.WORKER + models
