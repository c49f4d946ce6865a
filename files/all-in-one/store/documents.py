"""Documents: given once, kept as they are, indexed by the worker."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from store import generations
from store.connection import Database
from store.errors import StoreError
from store.statements import statement


@dataclass(frozen=True)
class Document:
    """`id` is the caller's; the same id again replaces what was there."""

    id: str
    text: str
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    source: str | None = None

    @property
    def content_hash(self) -> bytes:
        """Changes whenever there is something to embed again: the title or the text."""
        digest = hashlib.sha256()
        for part in (self.title, self.text):
            encoded = part.encode("utf-8")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.digest()


@dataclass(frozen=True)
class Refusal:
    """A document of a stream that is not kept, at its line (from 1)."""

    line: int
    reason: str


def submit(database: Database, documents: Sequence[Document], refused: Sequence[Refusal] = ()) -> UUID:
    """Store documents and the job that indexes them, in one transaction; returns the job's id.

    The job remembers what was `refused`. Content that is indexed already costs nothing; content that is queued already
    is waited for, not queued again.
    Ids must differ. StoreError before the first migration.
    """
    if len({document.id for document in documents}) != len(documents):
        raise ValueError("submit() takes every id once.")
    columns = {
        "ids": [document.id for document in documents],
        "titles": [document.title for document in documents],
        "texts": [document.text for document in documents],
        "metadata": [Jsonb(document.metadata) for document in documents],
        "sources": [document.source for document in documents],
        "hashes": [document.content_hash for document in documents],
    }
    with database.transaction():
        if generations.active(database) is None:
            raise StoreError("There is no active generation; run `python -m store migrate` first.")
        database.execute(statement("store_documents"), columns)
        database.execute(statement("supersede_items"), columns)
        database.execute(statement("queue_items"), columns)
        job = database.execute(statement("create_job"), columns).fetchone()
        assert job is not None
        for refusal in refused:
            database.execute(
                "INSERT INTO job_refusals (job_id, line, reason) VALUES (%s, %s, %s)",
                [job["id"], refusal.line, refusal.reason],
            )
    return UUID(str(job["id"]))


def change(database: Database, document_id: str, changes: Mapping[str, Any]) -> UUID | None:
    """Replace some of a document's fields (title, text, metadata, source); the job, or None if there is none."""
    with database.transaction():
        _lock_table(database)
        found = database.execute(
            "SELECT title, text, metadata, source FROM documents WHERE id = %s FOR UPDATE", [document_id]
        ).fetchone()
        if found is None:
            return None
        return submit(database, [Document(id=document_id, **{**found, **changes})])


def page(database: Database, *, after: str, limit: int, state: str | None) -> list[dict[str, Any]]:
    """Documents in the order of their ids, from the one behind `after`, without their texts; as `get` otherwise."""
    wanted = {"after": after, "limit": limit, "state": state}
    return database.execute(statement("list_documents"), wanted).fetchall()


def get(database: Database, document_id: str) -> dict[str, Any] | None:
    """The document with the state of its index entry: indexed, queued, running or parked (with the reason)."""
    return database.execute(statement("get_document"), {"id": document_id}).fetchone()


def delete(database: Database, document_id: str) -> bool:
    """Remove a document and everything computed from it, in every generation. False if there is none."""
    with database.transaction():
        _lock_table(database)
        found = database.execute("SELECT FROM documents WHERE id = %s FOR UPDATE", [document_id]).fetchone()
        if found is None:
            return False
        for generation in generations.every(database):
            generations.lock(database, generation)
            remove_chunks(database, generation, document_id)
        database.execute(
            "UPDATE items SET state = 'superseded', reason = 'the document was deleted', finished_at = now(),"
            " worker = NULL, lease_until = NULL"
            " WHERE document_id = %s AND state IN ('queued', 'running', 'parked')",
            [document_id],
        )
        database.execute("DELETE FROM documents WHERE id = %s", [document_id])
        return True


def _lock_table(database: Database) -> None:
    """Before any row: a migration locks the table first and the generation's row then."""
    database.execute("LOCK TABLE documents IN ROW EXCLUSIVE MODE")


def remove_chunks(database: Database, generation: generations.Generation, document_id: str) -> None:
    """Take a document's chunks out of a generation, with their lexemes and statistics. Needs `generations.lock`."""
    database.execute(
        statement("remove_chunks", **generation.tables), {"document": document_id, "generation": generation.id}
    )
