"""What a search reads: nearest vectors, matching words, and the passages they belong to."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from psycopg import sql
from psycopg.types.range import Range

from store.connection import Database, Pool
from store.filters import Filter, condition
from store.generations import LATIN, Generation
from store.statements import statement
from store.vectors import Matrix, received, vector_text

# BM25's usual constants: how fast repetition saturates, and how much long chunks are held back.
SATURATION = 1.2
LENGTH_WEIGHT = 0.75
MAX_EF_SEARCH = 1000  # pgvector's own limit
# Up to so many documents that a filter allows, all their vectors are compared: exact, and some 20 ms.
MEASURED_DOCUMENTS = 5000

LOCK_PATIENCE = 100  # milliseconds
# A mean vector needs no more chunks than that, and says nothing with fewer than these.
SAMPLED_CHUNKS = 5000
LEAST_CHUNKS = 20

ALL = sql.SQL("true")
OTHERS = sql.SQL("NOT ({})").format(LATIN)
ALLOWED_CHUNKS = sql.SQL(
    "chunk_id IN (SELECT chunks.id FROM documents JOIN {chunks} AS chunks ON chunks.document_id = documents.id"
    " WHERE {condition})"
)


class Candidate(NamedTuple):
    """A chunk's document, whether it is in Latin script, its inner product with the vector and its BM25 score.

    Each of the two is 0 where it was not asked for.
    """

    document_id: str
    latin: bool
    similarity: float = 0.0
    score: float = 0.0


@contextmanager
def view(pool: Pool, generation: Generation, *, snapshot: str | None = None) -> Iterator[Database]:
    """A connection that sees a generation as it is at one moment, or at that of a `snapshot`, and changes nothing.

    Whoever shared that moment waits for this view, with locks that another may be waiting for, and this one behind
    that: LockNotAvailable after LOCK_PATIENCE.
    """
    moment: sql.Composable = sql.SQL("")
    if snapshot:
        moment = statement("share_moment", snapshot=sql.Literal(snapshot), patience=sql.Literal(LOCK_PATIENCE))
    with pool.connection() as database:  # which ends the transaction
        # Several statements at once cannot be prepared.
        database.execute(statement("begin_reading", moment=moment, **generation.tables), prepare=False)
        yield database


def share(database: Database) -> str:
    """The snapshot of this view, for other views while it lasts. DiskFull where the server cannot write it down."""
    row = database.execute("SELECT pg_export_snapshot() AS name").fetchone()
    assert row is not None
    return str(row["name"])


def nearest(
    database: Database,
    generation: Generation,
    vector: Sequence[float] | str,
    limit: int,
    filters: Sequence[Filter] = (),
    *,
    latin: bool | None = None,
) -> dict[int, Candidate]:
    """{chunk: candidate} of the `limit` nearest chunks in Latin script and as many in others, nearest first.

    `latin` leaves one of the two out. Only those of documents that `filters` allow.

    Needs a transaction. A vector may be given as pgvector's text.
    """
    holds, values = condition(filters)
    text = vector if isinstance(vector, str) else vector_text(vector)
    scripts = [True, False] if latin is None else [latin]
    wanted = {"vector": text, "limit": limit, "scripts": scripts, **values}
    if filters and _count(database, filters) <= MEASURED_DOCUMENTS:
        query = statement("nearest_allowed", allowed=holds, latin=LATIN, **generation.tables)
        return _compared(database.execute(query, wanted).fetchall())
    # An index never returns more rows than ef_search; twice as many keep the tail's recall.
    looked_at = min(MAX_EF_SEARCH, max(40, 2 * limit))
    database.execute(
        "SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'strict_order', true)",
        [str(looked_at)],
    )
    allowed = sql.SQL("document_id IN (SELECT id FROM documents WHERE {})").format(holds) if filters else ALL
    rows = []
    for one in scripts:
        script = LATIN if one else OTHERS
        query = statement("nearest_chunks", allowed=allowed, script=script, latin=LATIN, **generation.tables)
        rows += database.execute(query, wanted).fetchall()
    return nearest_first(_compared(rows))


def nearest_first(*found: Mapping[int, Candidate]) -> dict[int, Candidate]:
    """All of them in one order."""
    together = [entry for one in found for entry in one.items()]
    return dict(sorted(together, key=lambda entry: (-entry[1].similarity, entry[0])))


def _count(database: Database, filters: Sequence[Filter]) -> int:
    """How many documents the filters allow, counted no further than matters."""
    holds, values = condition(filters)
    query = statement("count_allowed", condition=holds)
    row = database.execute(query, {"most": MEASURED_DOCUMENTS + 1, **values}).fetchone()
    assert row is not None
    return int(row["documents"])


def frequencies(database: Database, generation: Generation, lexemes: Sequence[str]) -> dict[str, int]:
    """{lexeme: chunks that contain it}, only for lexemes that some chunk contains."""
    rows = database.execute(statement("read_frequencies", **generation.tables), {"lexemes": list(lexemes)}).fetchall()
    return {row["lexeme"]: row["chunks"] for row in rows}


def inverse_frequency(generation: Generation, chunks_with_it: int) -> float:
    """BM25's weight of a lexeme: 0 for one that is everywhere, larger the rarer it is."""
    return math.log1p((generation.chunks - chunks_with_it + 0.5) / (chunks_with_it + 0.5))


def matching(
    database: Database,
    generation: Generation,
    weights: Mapping[str, float],
    limit: int,
    filters: Sequence[Filter] = (),
) -> tuple[dict[int, Candidate], Matrix]:
    """{chunk: candidate} of the `limit` best chunks by BM25 of documents that `filters` allow, best first, and vectors.

    The chunks' vectors are in the same order. `weights` are the lexemes' inverse frequencies.
    """
    if not weights or not generation.chunks:
        return {}, np.empty((0, generation.dimension), np.float32)
    holds, values = condition(filters)
    allowed = ALLOWED_CHUNKS.format(condition=holds, **generation.tables) if filters else ALL
    query = statement("matching_chunks", allowed=allowed, latin=LATIN, **generation.tables)
    wanted = {
        "lexemes": list(weights),
        "weights": list(weights.values()),
        "saturation": SATURATION,
        "length_weight": LENGTH_WEIGHT,
        "mean_length": max(1.0, generation.lexemes / generation.chunks),
        "limit": limit,
        **values,
    }
    with database.cursor(binary=True) as cursor:
        rows = cursor.execute(query, wanted).fetchall()
    found = {row["id"]: Candidate(row["document_id"], row["latin"], score=row["score"]) for row in rows}
    return found, received([row["vector"] for row in rows], generation.dimension)


def centroids(database: Database, generation: Generation) -> dict[bool, list[float]]:
    """{Latin script or not: mean vector} of the chunks, from some thousands; a script of a few chunks is left out."""
    percent = min(100.0, 100.0 * SAMPLED_CHUNKS / max(1, generation.chunks))
    rows = database.execute(
        statement("centroids", latin=LATIN, **generation.tables), {"percent": percent, "least": LEAST_CHUNKS}
    ).fetchall()
    return {row["latin"]: json.loads(row["centroid"]) for row in rows}


def passages(
    database: Database, generation: Generation, chunks: Sequence[int], lexemes: Sequence[str] = ()
) -> dict[int, dict[str, Any]]:
    """{chunk: {document_id, title, text, start, end, metadata, source, highlights}}.

    `highlights` are where the given lexemes stand in the text: (start, end) in characters, in order, apart from each
    other. None where that is not known: the chunk was stored before places were.
    """
    rows = database.execute(
        statement("passages", **generation.tables), {"chunks": list(chunks), "lexemes": list(lexemes)}
    ).fetchall()
    return {row.pop("id"): row | {"highlights": _spans(row["highlights"])} for row in rows}


def _compared(rows: Iterable[Mapping[str, Any]]) -> dict[int, Candidate]:
    return {row["id"]: Candidate(row["document_id"], row["latin"], similarity=row["similarity"]) for row in rows}


def _spans(places: Iterable[Range[int]] | None) -> list[tuple[int, int]] | None:
    if places is None:
        return None
    return [(place.lower, place.upper) for place in places if place.lower is not None and place.upper is not None]
