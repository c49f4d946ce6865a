"""What a generation must fulfil before it serves: nothing found today is lost, and its index finds what is near."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from store import recall, switching
from store.connection import Database
from store.generations import Generation
from store.statements import statement

SAMPLE = 50
# With these settings of the index, random and real vectors alike reach 0.98 and more; less than this is an index that
# is broken, or vectors that lie too close together to be told apart.
RECALL = 0.95


@dataclass(frozen=True)
class Verdict:
    """`why` is what fell short, None if nothing did; `figures` is what was measured."""

    why: str | None
    figures: dict[str, Any]


def judge(database: Database, serving: Generation, generation: Generation, go_on: Callable[[], bool]) -> Verdict | None:
    """Judge a generation that waits for nothing more. None if it does again, or once `go_on()` is False."""
    with database.transaction():
        # One picture: what arrives meanwhile is either in all of these, or in none.
        database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if switching.is_open(database, generation):
            return None
        behind = switching.count_behind(database, serving, generation)
        counted = database.execute(
            statement("count_chunks", generation=sql.Literal(generation.id), **generation.tables)
        ).fetchone()
    assert counted is not None
    found = recall.measure(database, generation, SAMPLE, go_on)
    if found is None:
        return None
    figures = {"behind": behind, "chunks": counted["chunks"], "vectors": counted["vectors"], "recall": round(found, 4)}
    return Verdict(_shortfall(database, generation, figures), figures)


def _shortfall(database: Database, generation: Generation, figures: dict[str, Any]) -> str | None:
    if figures["behind"]:
        first = switching.first_given_up(database, generation)
        return (
            f"{figures['behind']} documents that are found today could not be indexed with {generation.release}"
            f"{f', the first: {first}' if first else ''}."
        )
    if figures["vectors"] != figures["chunks"]:
        return f"Of {figures['chunks']} chunks {figures['vectors']} have a vector by {generation.release}."
    if figures["recall"] < RECALL:
        return (
            f"The index of {generation.release} finds {figures['recall']:.3f} of the ten nearest vectors; "
            f"at least {RECALL} is needed."
        )
    return None
