"""What the vector index finds of what is nearest, which decides whether a new one comes to serve."""

import numpy as np
import pytest
from psycopg import sql

from store import generations, recall, search
from store.connection import Database
from store.generations import Generation
from store.vectors import vector_text

CHUNKS, DIMENSION, SAMPLE = 3000, 32, 40


@pytest.fixture
def vectors(database: Database, generation: Generation) -> dict[int, np.ndarray]:
    """{chunk: vector} of a generation's chunks at random, in a table that Postgres reads by its indexes."""
    drawn = np.random.default_rng(5).standard_normal((CHUNKS, DIMENSION)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    columns = "(id, document_id, ordinal, start_offset, end_offset, content, tokens, embedding)"
    with database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO documents (id, title, text, metadata, content_hash) VALUES (%s, %s, %s, %s, %s)",
            ["all", "", "", "{}", b""],
        )
        with cursor.copy(sql.SQL(f"COPY {{chunks}} {columns} FROM STDIN").format(**generation.tables)) as copy:
            for number, vector in enumerate(drawn):
                copy.write_row((number, "all", number, 0, 0, "", 0, vector_text(vector.tolist())))
    database.execute("SET seq_page_cost = 1000")
    return dict(enumerate(drawn))


def weaken(database: Database, generation: Generation) -> None:
    """Another index of the vectors, whose texts are none in Latin script, with too few links to find its way."""
    rows = database.execute(
        "SELECT indexname FROM pg_indexes WHERE tablename = %s AND indexdef LIKE '%%USING hnsw%%'",
        [f"generation_{generation.id}_chunks"],
    ).fetchall()
    for row in rows:
        database.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(row["indexname"])))
    database.execute(
        sql.SQL(
            "CREATE INDEX ON {chunks} USING hnsw (embedding vector_ip_ops) WITH (m = 2, ef_construction = 4)"
            " WHERE NOT ({latin})"
        ).format(latin=generations.LATIN, **generation.tables)
    )


def found(database: Database, generation: Generation, vectors: dict[int, np.ndarray], wanted: np.ndarray) -> float:
    """Share of the ten nearest vectors that a search finds, the exact ones by NumPy."""
    similarities = np.stack(list(vectors.values())) @ wanted
    nearest = set(np.argsort(-similarities)[: recall.DEPTH].tolist())
    with database.transaction():
        return len(nearest & search.nearest(database, generation, wanted.tolist(), recall.CANDIDATES).keys()) / 10


def test_a_good_index_finds_what_is_nearest(
    database: Database, generation: Generation, vectors: dict[int, np.ndarray]
) -> None:
    measured = recall.measure(database, generation, SAMPLE, lambda: True)
    assert measured is not None and measured > 0.98


def test_what_a_weak_index_misses_is_measured_however_often_it_was_asked(
    database: Database, generation: Generation, vectors: dict[int, np.ndarray]
) -> None:
    weaken(database, generation)
    rows = database.execute(
        sql.SQL("SELECT id FROM {chunks} ORDER BY hashint8(id) LIMIT {sample}").format(
            sample=sql.Literal(SAMPLE), **generation.tables
        )
    ).fetchall()
    expected = np.mean([found(database, generation, vectors, vectors[row["id"]]) for row in rows])
    assert expected < 0.9, "it finds too much for this test"
    assert recall.measure(database, generation, SAMPLE, lambda: True) == pytest.approx(expected)


def test_the_exactly_nearest_are_those_of_numpy(
    database: Database, generation: Generation, vectors: dict[int, np.ndarray]
) -> None:
    weaken(database, generation)
    for wanted in list(vectors.values())[:12]:
        similarities = np.stack(list(vectors.values())) @ wanted
        exact = recall.exact(database, generation, vector_text(wanted.tolist()), 100)
        assert list(exact.values()) == pytest.approx(np.sort(similarities)[::-1][:100], abs=1e-5)
