"""How much of what is nearest the vector index of a generation finds."""

from collections.abc import Callable

from store.connection import Database
from store.generations import Generation
from store.search import nearest
from store.statements import statement

DEPTH = 10
CANDIDATES = 100  # a search asks for as many of each kind
ROUNDING = 1e-5  # of an inner product: equal vectors are equally near, whichever of them is found


def measure(database: Database, generation: Generation, sample: int, go_on: Callable[[], bool]) -> float | None:
    """recall@10 against comparing all vectors, the mean over `sample` of the generation's own vectors.

    1.0 without a chunk. None once `go_on()` is False.
    """
    rows = database.execute(statement("sample_vectors", **generation.tables), {"sample": sample}).fetchall()
    found = []
    for row in rows:
        if not go_on():
            return None
        with database.transaction():
            approximate = nearest(database, generation, row["vector"], CANDIDATES).values()
        nearest_of_all = exact(database, generation, row["vector"], DEPTH).values()
        least = min(nearest_of_all) - ROUNDING
        found.append(min(1.0, sum(one.similarity >= least for one in approximate) / len(nearest_of_all)))
    return sum(found) / len(found) if found else 1.0


def exact(database: Database, generation: Generation, vector: str, limit: int) -> dict[int, float]:
    """{chunk: inner product} of the `limit` nearest chunks by comparing all vectors, nearest first."""
    with database.transaction():
        # Which holds for a statement of its own alone: that of a search, once prepared, keeps its plan with the index.
        database.execute("SET LOCAL enable_indexscan = off")
        query = statement("nearest_exactly", **generation.tables)
        rows = database.execute(query, {"vector": vector, "limit": limit}).fetchall()
    return {row["id"]: row["similarity"] for row in rows}
