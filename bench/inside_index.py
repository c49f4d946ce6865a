"""Runs inside the app's image, in the box's network: `python -m bench.inside_index COUNT`, material on standard input.

Fills a database of its own with chunks that are really embedded and analysed, and searches them as the app does.
"""

import hashlib
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from app.retrieval import Request
from app.services import Services, make
from app.settings import Settings
from bench.figures import latency
from bench.system import timed
from pipeline.embedder import Embedder, Vectors
from store import generations, recall, switching
from store import search as stored
from store.connection import Database, conninfo
from store.generations import Generation
from store.migrate import migrate
from store.results import places_text
from store.vectors import vector_text
from store.wanted import embedding_folder
from text import analyser, chunker, sentences
from text.analyser import Analyser
from worker.indexing import standing

DATABASE = "onebox_bench"
BATCH = 1000
RECALLED = 100  # nearest chunks, as many as a search takes
SEARCHES = 300
PATIENCE = 120.0  # seconds for the models to load

Places = dict[str, list[tuple[int, int]]]  # {lexeme: where in the text}
Row = tuple[int, str, np.ndarray[Any, Any], Places]  # number, text, vector


def main() -> None:
    """Print one JSON object. Material is {"passages": {language: text}, "queries": [text]}."""
    material = json.load(sys.stdin)
    texts = sentence_pairs(material["passages"], int(sys.argv[1]))
    with scratch_database(conninfo()) as where:
        print(json.dumps(measure(where, texts, material["queries"], Path(sys.argv[2]))))


def sentence_pairs(passages: dict[str, str], count: int) -> list[str]:
    """`count` different texts of two sentences each, the languages in turns; the same on every run."""
    split = {
        language: [text[start:end].strip() for start, end in sentences.split(text)]
        for language, text in passages.items()
    }
    chance = random.Random(5)
    found: dict[str, None] = {}
    for language in (language for _ in range(count) for language in split):
        found[" ".join(chance.sample(split[language], 2))] = None
        if len(found) == count:
            break
    return list(found)


@contextmanager
def scratch_database(where: str) -> Iterator[str]:
    """Connection string of an empty database on the same server, which is dropped afterwards. One at a time."""
    name = sql.Identifier(DATABASE)
    with psycopg.connect(where, autocommit=True) as server:
        alone = server.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [DATABASE]).fetchone()
        if alone != (True,):  # it goes with the connection
            raise SystemExit(f"bench: another run uses the database {DATABASE}: let it end, or stop its container")
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        server.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            yield make_conninfo(where, dbname=DATABASE, options="")
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def measure(where: str, texts: Sequence[str], queries: Sequence[str], kept: Path) -> dict[str, Any]:
    """Times of embedding, analysing and index build, sizes, recall against exact search, and latency of searches.

    Vectors are `kept` in that folder for the next time.
    """
    migrate(where)
    embedder, words = Embedder(embedding_folder()), Analyser()
    wanted = generations.read_wanted(embedding_folder(), chunker=chunker.VERSION, analyser=analyser.VERSION)
    # The store's own connections give up what takes as long as building this index.
    with psycopg.connect(where, autocommit=True, row_factory=dict_row) as database:
        switching.want(database, wanted)
        indexes = _take_indexes(database, generations.serving(database))
        vectors, found = _vectors(embedder, texts, kept)
        found |= _fill(database, vectors, words, texts)
        found |= _build(database, indexes)
        database.execute("VACUUM ANALYZE")
        found |= _sizes(database) | _recall(database, embedder, queries[:SEARCHES])
    with _services(where) as services:
        return found | _searches(services, queries[: 2 * SEARCHES])


def _take_indexes(database: Database, generation: Generation) -> list[str]:
    """Drop the indexes of the vectors, to build them over all of them at once; what creates them again."""
    table = f"generation_{generation.id}_chunks"
    rows = database.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexdef LIKE '%%USING hnsw%%'", [table]
    ).fetchall()
    for row in rows:
        database.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(row["indexname"])))
    return [str(row["indexdef"]) for row in rows]


def _build(database: Database, indexes: Sequence[str]) -> dict[str, Any]:
    """How long the indexes take, and whether they were built in the memory that Postgres gives them."""
    notices: list[str | None] = []
    database.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    seconds = round(timed(lambda: [database.execute(index) for index in indexes]), 1)
    row = database.execute("SHOW maintenance_work_mem").fetchone()
    assert row is not None
    return {
        "index_build_seconds": seconds,
        "index_build_memory": row["maintenance_work_mem"],
        # As pgvector words it; what comes after that goes to the disk row by row.
        "index_built_in_memory": not any("no longer fits into maintenance_work_mem" in (one or "") for one in notices),
    }


def _vectors(embedder: Embedder, texts: Sequence[str], kept: Path) -> tuple[Vectors, dict[str, Any]]:
    """Of all texts, and the seconds that they took; None where the same release was asked for the same ones before."""
    name = hashlib.sha256(json.dumps([embedder.release_id, *texts]).encode()).hexdigest()
    file = kept / f"{name[:16]}.npy"
    if file.exists():
        return np.load(file), {"embed_seconds": None}
    start = time.perf_counter()
    vectors = np.concatenate([embedder.encode_array(batch, input_type="passage") for batch in batched(texts, BATCH)])
    seconds = round(time.perf_counter() - start, 1)
    for other in kept.glob("*.npy"):
        other.unlink()
    unfinished = file.with_suffix(".part")
    with unfinished.open("wb") as written:
        np.save(written, vectors)
    unfinished.rename(file)
    return vectors, {"embed_seconds": seconds}


def _fill(database: Database, vectors: Vectors, words: Analyser, texts: Sequence[str]) -> dict[str, Any]:
    """One document of one chunk for each text."""
    generation = generations.serving(database)
    analysing = 0.0
    counts: Counter[str] = Counter()
    total = 0
    for batch in batched(enumerate(texts, 1), BATCH):
        start = time.perf_counter()
        places = [standing(words.words(text)) for _, text in batch]
        analysing += time.perf_counter() - start
        _copy(
            database,
            generation,
            [(*row, vectors[row[0] - 1], found) for row, found in zip(batch, places, strict=True)],
        )
        for found in places:
            counts.update(found.keys())
            total += sum(map(len, found.values()))
    frequencies = sql.SQL("COPY {frequencies} (lexeme, chunks) FROM STDIN").format(**generation.tables)
    with database.cursor() as cursor, cursor.copy(frequencies) as copy:
        for row in counts.items():
            copy.write_row(row)
    database.execute(
        "UPDATE generations SET chunks = %s, lexemes = %s WHERE id = %s", [len(texts), total, generation.id]
    )
    return {"chunks": len(texts), "analyse_seconds": round(analysing, 1)}


def _copy(database: Database, generation: Generation, rows: Sequence[Row]) -> None:
    with database.transaction(), database.cursor() as cursor:
        with cursor.copy("COPY documents (id, title, text, metadata, content_hash) FROM STDIN") as copy:
            for number, text, _, _ in rows:
                copy.write_row((str(number), "", text, "{}", b""))
        columns = "(id, document_id, ordinal, start_offset, end_offset, content, tokens, embedding)"
        with cursor.copy(sql.SQL(f"COPY {{chunks}} {columns} FROM STDIN").format(**generation.tables)) as copy:
            for number, text, vector, _ in rows:
                copy.write_row((number, str(number), 0, 0, len(text), text, 0, vector_text(vector.tolist())))
        columns = "(lexeme, chunk_id, occurrences, length, places)"
        with cursor.copy(sql.SQL(f"COPY {{lexemes}} {columns} FROM STDIN").format(**generation.tables)) as copy:
            for number, _, _, places in rows:
                length = sum(map(len, places.values()))
                for lexeme, found in places.items():
                    copy.write_row((lexeme, number, len(found), length, places_text(found)))


def _sizes(database: Database) -> dict[str, Any]:
    """Megabytes of the generation's tables, and of the index of the vectors alone."""
    generation = generations.serving(database).id
    row = database.execute(
        "SELECT pg_table_size(%(chunks)s::text::regclass) AS chunks_mb,"
        " pg_total_relation_size(%(lexemes)s::text::regclass) AS words_mb,"
        " (SELECT sum(pg_relation_size(indexname::regclass)) FROM pg_indexes"
        "  WHERE tablename = %(chunks)s::text AND indexdef LIKE '%%USING hnsw%%') AS index_mb",
        {name: f"generation_{generation}_{name}" for name in ("chunks", "lexemes")},
    ).fetchone()
    assert row is not None
    return {name: round(float(size) / 1e6, 2) for name, size in row.items()}


def _recall(database: Database, embedder: Embedder, queries: Sequence[str]) -> dict[str, Any]:
    """Shares of the exactly nearest 10 and 100 chunks that the search's own query finds."""
    generation = generations.serving(database)
    shares: dict[int, list[float]] = {10: [], RECALLED: []}
    for vector in embedder.encode_array(list(queries), input_type="query"):
        wanted = vector.tolist()
        with database.transaction():
            near = list(stored.nearest(database, generation, wanted, RECALLED))
        exact = list(recall.exact(database, generation, vector_text(wanted), RECALLED))
        for depth, found in shares.items():
            found.append(len(set(near[:depth]) & set(exact[:depth])) / len(exact[:depth]))
    return {f"recall@{depth}": round(statistics.fmean(found), 4) for depth, found in shares.items()}


def _searches(services: Services, queries: Sequence[str]) -> dict[str, Any]:
    """Latency of whole searches without reranking, and the 95th percentile of each stage. No query is asked twice.

    The first half meets what building the index left in memory; the second what a box in use has there.
    """
    half = len(queries) // 2
    first, timings = (
        [services.search.run(services.models.get, Request(query, 10, "off", "hybrid"))["timings_ms"] for query in part]
        for part in (queries[:half], queries[half:])
    )
    stages = {name: round(float(np.percentile([timing[name] for timing in timings], 95)), 2) for name in timings[0]}
    return {"first_searches": _latency(first), "search": _latency(timings), "stages_p95_ms": stages}


def _latency(timings: Sequence[dict[str, float]]) -> dict[str, Any]:
    return latency([timing["total"] / 1000 for timing in timings])


@contextmanager
def _services(where: str) -> Iterator[Services]:
    """The app's services over a database, with the models loaded."""
    services = make(Settings(), where)
    services.models.start()
    try:
        give_up = time.monotonic() + PATIENCE
        while services.models.loaded is None:
            if time.monotonic() > give_up:
                raise RuntimeError(services.models.why)
            time.sleep(0.1)
        yield services
    finally:
        services.close()


if __name__ == "__main__":
    main()
