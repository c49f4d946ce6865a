"""Index generations: one embedding space each, with typed tables of their own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.errors import UndefinedTable
from psycopg.types.json import Jsonb

from store.connection import Database
from store.errors import NoGenerationError, StoreError
from store.statements import statement

# Of a chunk: a character of another script takes two bytes or more. store/sql/create_generation.sql makes indexes for
# it, which a search uses where it asks in the same words.
LATIN = sql.SQL("octet_length(content) * 2 < length(content) * 3")
PLAIN_STORAGE_LIMIT = 1500  # dimensions: 4 bytes each must fit into an 8 KB page with the rest of the row


@dataclass(frozen=True)
class Index:
    """What decides whether two indexes can be mixed: the embedding space, and how texts become chunks and lexemes."""

    space: dict[str, Any]
    dimension: int
    release: str
    chunker: str
    analyser: str


@dataclass(frozen=True)
class Generation:
    """A row of `generations`. `chunks` and `lexemes` are totals.

    `release` computes its vectors; `wanted_release`, of the same space, is to be compared with it before it takes over.
    `why` says why it is refused, or does not get on. `gate` is what was measured
    before it became ready. `retired` is true of one that has served before.
    """

    id: int
    state: str
    space: dict[str, Any]
    release: str
    dimension: int
    chunker: str
    analyser: str
    chunks: int
    lexemes: int
    wanted_release: str | None
    why: str | None
    gate: dict[str, Any] | None
    retired: bool

    def holds(self, wanted: Index) -> bool:
        """Whether its vectors are of the wanted embedding space."""
        return (self.space, self.dimension) == (wanted.space, wanted.dimension)

    @property
    def cut(self) -> tuple[str, str]:
        """The versions of the chunker and of the analyser that its texts are to have gone through."""
        return self.chunker, self.analyser

    @property
    def tables(self) -> dict[str, sql.Composable]:
        """Identifiers of its tables: {chunks}, {lexemes} and {frequencies} in statements."""
        return {name: sql.Identifier(f"generation_{self.id}_{name}") for name in ("chunks", "lexemes", "frequencies")}


COLUMNS = (
    "id", "state", "space", "release", "dimension", "chunker", "analyser", "chunks", "lexemes", "wanted_release", "why",
    "gate",
)  # fmt: skip
UPCOMING = ("building", "ready", "refused")  # states of the one that is to take the place of the active one


def active(database: Database) -> Generation | None:
    """The generation that answers searches, None before the first migration has run to its end."""
    row = database.execute(
        "SELECT generations.* FROM active_generation JOIN generations ON generations.id = generation_id"
    ).fetchone()
    return _generation(row) if row else None


def serving(database: Database) -> Generation:
    """As `active`. StoreError before the first migration has run to its end."""
    try:
        generation = active(database)
    except UndefinedTable:
        generation = None
    if generation is None:
        raise StoreError("There is no active generation; run `python -m store migrate` first.")
    return generation


def get(database: Database, generation_id: int) -> Generation:
    """NoGenerationError if there is none."""
    generation = find(database, generation_id)
    if generation is None:
        raise NoGenerationError(f"There is no generation {generation_id}.")
    return generation


def every(database: Database) -> list[Generation]:
    """All generations, oldest first."""
    return [_generation(row) for row in database.execute("SELECT * FROM generations ORDER BY id").fetchall()]


def upcoming(database: Database) -> Generation | None:
    """The generation that is to take the place of the active one: it is built, ready to serve, or refused."""
    row = database.execute("SELECT * FROM generations WHERE state = ANY(%s)", [list(UPCOMING)]).fetchone()
    return _generation(row) if row else None


def find(database: Database, generation_id: int) -> Generation | None:
    """As `get`; None if there is none."""
    row = database.execute("SELECT * FROM generations WHERE id = %s", [generation_id]).fetchone()
    return _generation(row) if row else None


def read_wanted(release_folder: Path, *, chunker: str, analyser: str) -> Index:
    """What a release's manifest.json asks for. StoreError if it is not an embedding release."""
    try:
        manifest = json.loads((release_folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{release_folder}/manifest.json cannot be read ({error}); build the embedding model as a release, "
            "a bare ONNX folder does not say which vectors it makes."
        ) from None
    space, dimension = manifest.get("space"), manifest.get("dimension")
    if manifest.get("kind") != "embedding" or not isinstance(space, dict) or not isinstance(dimension, int):
        raise StoreError(f"{release_folder} is not an embedding release; set EMBED_RELEASE to the ID of one.")
    return Index(space=space, dimension=dimension, release=manifest["id"], chunker=chunker, analyser=analyser)


def create(database: Database, wanted: Index, *, state: str) -> Generation:
    """A new generation with empty tables."""
    row = database.execute(
        "INSERT INTO generations (state, space, release, dimension, chunker, analyser)"
        " VALUES (%s, %s, %s, %s, %s, %s) RETURNING *",
        [state, Jsonb(wanted.space), wanted.release, wanted.dimension, wanted.chunker, wanted.analyser],
    ).fetchone()
    assert row is not None
    generation = _generation(row)
    storage = sql.SQL("PLAIN" if wanted.dimension <= PLAIN_STORAGE_LIMIT else "EXTERNAL")
    database.execute(
        statement(
            "create_generation",
            dimension=sql.Literal(wanted.dimension),
            storage=storage,
            latin=LATIN,
            **generation.tables,
        )
    )
    return generation


def lock(database: Database, generation: Generation) -> Generation | None:
    """Whoever writes to a generation goes after the other: all touch its totals and its common lexemes.

    Returns it as it is now, None if it was dropped.

    Needs a transaction. Rows are locked in this order, or writers wait for each other: the document, its generations by
    their ids, its items. Who changes generations without a document locks the table `documents` first.
    """
    row = database.execute("SELECT * FROM generations WHERE id = %s FOR NO KEY UPDATE", [generation.id]).fetchone()
    return _generation(row) if row else None


def drop(database: Database, generation: Generation) -> None:
    """Remove a generation with all that was computed in it, the pointer included if it points there.

    Needs a transaction that holds the lock of `documents` against writers.
    """
    lock(database, generation)
    database.execute("DELETE FROM active_generation WHERE generation_id = %s", [generation.id])
    database.execute("DELETE FROM items WHERE generation_id = %s", [generation.id])
    database.execute("DELETE FROM generations WHERE id = %s", [generation.id])
    database.execute(statement("drop_generation", **generation.tables))


def count_documents(database: Database) -> int:
    row = database.execute("SELECT count(*) AS documents FROM documents").fetchone()
    assert row is not None
    return int(row["documents"])


def _generation(row: Mapping[str, Any]) -> Generation:
    return Generation(**{name: row[name] for name in COLUMNS}, retired=row["retired_at"] is not None)
