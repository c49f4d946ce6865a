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
from store.errors import StoreError
from store.statements import statement

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
    """A row of `generations`. `chunks` and `lexemes` are totals."""

    id: int
    state: str
    space: dict[str, Any]
    release: str
    dimension: int
    chunker: str
    analyser: str
    chunks: int
    lexemes: int

    @property
    def tables(self) -> dict[str, sql.Composable]:
        """Identifiers of its tables: {chunks}, {lexemes} and {frequencies} in statements."""
        return {name: sql.Identifier(f"generation_{self.id}_{name}") for name in ("chunks", "lexemes", "frequencies")}


COLUMNS = "id, state, space, release, dimension, chunker, analyser, chunks, lexemes"


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
    """StoreError if there is none."""
    row = database.execute("SELECT * FROM generations WHERE id = %s", [generation_id]).fetchone()
    if row is None:
        raise StoreError(f"There is no generation {generation_id}.")
    return _generation(row)


def every(database: Database) -> list[Generation]:
    """All generations, oldest first."""
    return [_generation(row) for row in database.execute("SELECT * FROM generations ORDER BY id").fetchall()]


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


@dataclass(frozen=True)
class Outcome:
    """What `ensure` did, in words."""

    changed: bool
    done: str


def ensure(database: Database, wanted: Index) -> Outcome:
    """Make the active generation fit what is wanted.

    StoreError when documents are indexed in another embedding space: their vectors cannot be compared with new ones.
    """
    with database.transaction():
        # Nobody adds a document in between; a submit that waits here queues its items in what is active afterwards.
        database.execute("LOCK TABLE active_generation, documents IN SHARE ROW EXCLUSIVE MODE")
        found = active(database)
        if found is None:
            return Outcome(True, f"created generation {_create_active(database, wanted).id}")
        if found.space == wanted.space and found.dimension == wanted.dimension:
            return _keep(database, found, wanted)
        documents = count_documents(database)
        if documents:
            raise StoreError(refusal(found, wanted, documents))
        drop(database, found)
        return Outcome(True, f"replaced generation {found.id} by {_create_active(database, wanted).id}")


def create(database: Database, wanted: Index, *, state: str) -> Generation:
    """A new generation with empty tables."""
    row = database.execute(
        "INSERT INTO generations (state, space, release, dimension, chunker, analyser)"
        f" VALUES (%s, %s, %s, %s, %s, %s) RETURNING {COLUMNS}",
        [state, Jsonb(wanted.space), wanted.release, wanted.dimension, wanted.chunker, wanted.analyser],
    ).fetchone()
    assert row is not None
    generation = _generation(row)
    storage = sql.SQL("PLAIN" if wanted.dimension <= PLAIN_STORAGE_LIMIT else "EXTERNAL")
    database.execute(
        statement("create_generation", dimension=sql.Literal(wanted.dimension), storage=storage, **generation.tables)
    )
    return generation


def drop(database: Database, generation: Generation) -> None:
    """Remove a generation with all that was computed in it, the pointer included if it points there."""
    database.execute("DELETE FROM active_generation WHERE generation_id = %s", [generation.id])
    database.execute(statement("drop_generation", **generation.tables))
    database.execute("DELETE FROM generations WHERE id = %s", [generation.id])


def count_documents(database: Database) -> int:
    row = database.execute("SELECT count(*) AS documents FROM documents").fetchone()
    assert row is not None
    return int(row["documents"])


def _create_active(database: Database, wanted: Index) -> Generation:
    generation = create(database, wanted, state="active")
    database.execute("INSERT INTO active_generation (generation_id) VALUES (%s)", [generation.id])
    return generation


def _keep(database: Database, found: Generation, wanted: Index) -> Outcome:
    recut = (found.chunker, found.analyser) != (wanted.chunker, wanted.analyser)
    if not recut and found.release == wanted.release:
        return Outcome(False, f"kept generation {found.id}")
    database.execute(
        "UPDATE generations SET release = %s, chunker = %s, analyser = %s WHERE id = %s",
        [wanted.release, wanted.chunker, wanted.analyser, found.id],
    )
    if not recut:
        return Outcome(True, f"kept generation {found.id}, now computed by release {wanted.release}")
    queued = database.execute(statement("queue_again"), {"generation": found.id}).rowcount
    return Outcome(True, f"kept generation {found.id}, queued {queued} documents to be cut and analysed again")


def refusal(found: Generation, wanted: Index, documents: int) -> str:
    """Why `wanted` cannot become active: how its embedding space differs from the one that documents are indexed in."""
    differences = ", ".join(
        f"{key} {found.space.get(key)!r} instead of {wanted.space.get(key)!r}"
        for key in sorted(found.space.keys() | wanted.space.keys())
        if found.space.get(key) != wanted.space.get(key)
    )
    return (
        f"{documents} documents are indexed by {found.release}, whose vectors cannot be mixed with those of "
        f"{wanted.release} ({differences or 'another dimension'}); keep the previous embedding model, "
        "or delete the documents first."
    )


def _generation(row: Mapping[str, Any]) -> Generation:
    return Generation(**{name: row[name] for name in COLUMNS.split(", ")})
