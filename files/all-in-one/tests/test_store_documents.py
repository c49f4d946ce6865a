"""Documents and their jobs: written together, never twice."""

from uuid import UUID

import psycopg
import pytest

from store import documents, jobs
from store.connection import Database
from store.documents import Document
from store.errors import StoreError
from store.generations import Generation


def states(database: Database) -> list[tuple[str, str]]:
    rows = database.execute("SELECT document_id, state FROM items ORDER BY id").fetchall()
    return [(row["document_id"], row["state"]) for row in rows]


def status(database: Database, job: UUID) -> dict[str, object]:
    found = jobs.status(database, job)
    assert found is not None
    return found


def index_everything(database: Database, generation: Generation) -> None:
    """As a worker would, without chunks."""
    while item := jobs.claim(database, "w", lease_seconds=60, max_attempts=3):
        database.execute("UPDATE items SET state = 'done', worker = NULL, lease_until = NULL WHERE id = %s", [item.id])
        database.execute(
            "INSERT INTO indexed VALUES (%s, %s, %s, 0) ON CONFLICT (document_id, generation_id)"
            " DO UPDATE SET content_hash = excluded.content_hash",
            [item.document_id, generation.id, item.content_hash],
        )


def test_a_document_waits_for_its_job(database: Database, generation: Generation) -> None:
    job = documents.submit(database, [Document("a", "text", title="title", metadata={"n": 1}, source="s")])
    found = documents.get(database, "a")
    assert found is not None
    assert (found["title"], found["text"], found["metadata"], found["source"]) == ("title", "text", {"n": 1}, "s")
    assert found["state"] == "queued"
    assert status(database, job)["status"] == "queued"


def test_nothing_is_kept_of_a_submit_that_fails(database: Database, generation: Generation) -> None:
    with pytest.raises(psycopg.DataError):
        documents.submit(database, [Document("a", "good"), Document("b", "not storable \x00")])
    assert documents.get(database, "a") is None
    assert states(database) == []


def test_before_the_first_migration_nothing_is_accepted(database: Database) -> None:
    with pytest.raises(StoreError, match=r"run `python -m store migrate` first"):
        documents.submit(database, [Document("a", "text")])


def test_the_same_content_while_queued_waits_for_the_same_item(database: Database, generation: Generation) -> None:
    first = documents.submit(database, [Document("a", "text")])
    second = documents.submit(database, [Document("a", "text")])
    assert states(database) == [("a", "queued")]
    index_everything(database, generation)
    assert status(database, first)["status"] == status(database, second)["status"] == "done"


def test_the_same_content_once_indexed_costs_nothing(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text"), Document("b", "text")])
    index_everything(database, generation)
    again = documents.submit(database, [Document("a", "text"), Document("b", "new text")])
    assert states(database) == [("a", "done"), ("b", "done"), ("b", "queued")]
    assert (status(database, again)["documents"], status(database, again)["unchanged"]) == (2, 1)
    assert status(database, again)["done"] == 1


def test_changed_metadata_is_stored_without_embedding_again(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text")])
    index_everything(database, generation)
    documents.submit(database, [Document("a", "text", metadata={"shelf": 2})])
    found = documents.get(database, "a")
    assert found is not None and found["metadata"] == {"shelf": 2}
    assert states(database) == [("a", "done")]


def test_newer_content_takes_the_place_of_queued_content(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "old")])
    documents.submit(database, [Document("a", "new")])
    assert states(database) == [("a", "superseded"), ("a", "queued")]


def test_going_back_to_indexed_content_needs_nothing(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "one")])
    index_everything(database, generation)
    documents.submit(database, [Document("a", "two")])
    documents.submit(database, [Document("a", "one")])
    assert states(database) == [("a", "done"), ("a", "superseded")]


def test_a_deleted_document_leaves_nothing_to_do(database: Database, generation: Generation) -> None:
    job = documents.submit(database, [Document("a", "text")])
    assert documents.delete(database, "a")
    assert documents.get(database, "a") is None
    assert jobs.claim(database, "w", lease_seconds=60, max_attempts=3) is None
    assert status(database, job)["status"] == "done"


def test_deleting_what_is_not_there_says_so(database: Database, generation: Generation) -> None:
    assert not documents.delete(database, "a")


def test_an_unknown_job_has_no_status(database: Database, generation: Generation) -> None:
    assert jobs.status(database, UUID(int=0)) is None
