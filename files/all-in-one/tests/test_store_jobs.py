"""Items: claimed by one worker, lost by none."""

from waiting import eventually, in_thread, locked

from store import documents, jobs, results
from store.connection import Database, connect
from store.documents import Document
from store.generations import Generation
from store.jobs import Item
from store.statements import statement


def claim(database: Database, worker: str, *, max_attempts: int = 3) -> Item | None:
    return jobs.claim(database, worker, lease_seconds=60, max_attempts=max_attempts)


def must_claim(database: Database, worker: str, *, max_attempts: int = 3) -> Item:
    item = claim(database, worker, max_attempts=max_attempts)
    assert item is not None
    return item


def expire_leases(database: Database) -> None:
    """As if the worker had been silent for a minute."""
    database.execute("UPDATE items SET lease_until = now() - interval '1 s' WHERE state = 'running'")


def item_row(database: Database) -> dict[str, object]:
    row = database.execute("SELECT * FROM items ORDER BY id LIMIT 1").fetchone()
    assert row is not None
    return row


def give_up(database: Database) -> None:
    """Let the next item fail for the last time."""
    item = must_claim(database, "w", max_attempts=1)
    assert jobs.fail(database, item.id, "w", "no luck", max_attempts=1, retry_seconds=0) == "parked"


def test_two_workers_never_hold_the_same_item(database: Database, database_url: str, generation: Generation) -> None:
    documents.submit(database, [Document("a", "one"), Document("b", "two")])
    with connect(database_url) as other, database.transaction():
        first = claim(database, "first")
        # The first claim is not committed yet: the second worker passes over it instead of waiting.
        second = claim(other, "second")
    assert first and second
    assert {first.document_id, second.document_id} == {"a", "b"}


def test_a_claim_counts_its_attempt_before_any_work(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text")])
    item = must_claim(database, "w")
    assert item.attempts == 1
    assert item_row(database)["attempts"] == 1


def test_an_item_under_a_lease_is_left_alone(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text")])
    assert claim(database, "first")
    assert claim(database, "second") is None


def test_a_dead_workers_item_goes_to_the_next(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text")])
    first = must_claim(database, "first")
    expire_leases(database)
    second = must_claim(database, "second")
    assert (second.id, second.attempts) == (first.id, 2)
    assert not jobs.renew(database, first.id, "first", lease_seconds=60)
    assert jobs.renew(database, second.id, "second", lease_seconds=60)


def test_a_document_that_kills_every_worker_is_parked(database: Database, generation: Generation) -> None:
    job = documents.submit(database, [Document("a", "text")])
    for worker in ("first", "second"):
        assert claim(database, worker, max_attempts=2)
        expire_leases(database)
    assert claim(database, "third", max_attempts=2) is None
    status = jobs.status(database, job)
    assert status is not None and status["status"] == "failed"
    assert "worker second died or lost its lease at attempt 2" in status["error"]
    assert status["failures"][0]["document"] == "a"


def test_a_failing_document_is_tried_again_later_then_parked(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text")])
    item = must_claim(database, "w", max_attempts=2)
    assert jobs.fail(database, item.id, "w", "no luck", max_attempts=2, retry_seconds=3600) == "queued"
    assert claim(database, "w", max_attempts=2) is None
    database.execute("UPDATE items SET available_at = now()")
    assert claim(database, "w", max_attempts=2)
    assert jobs.fail(database, item.id, "w", "no luck", max_attempts=2, retry_seconds=3600) == "parked"
    found = documents.get(database, "a")
    assert found is not None
    assert (found["state"], found["reason"]) == ("parked", "no luck")


def test_submitting_a_parked_document_again_is_another_try(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text")])
    item = must_claim(database, "w", max_attempts=1)
    jobs.fail(database, item.id, "w", "no luck", max_attempts=1, retry_seconds=0)
    documents.submit(database, [Document("a", "text")])
    again = must_claim(database, "w", max_attempts=1)
    assert again.attempts == 1
    assert jobs.queue(database)["parked"] == 0


def test_a_released_item_has_not_used_an_attempt(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text")])
    item = must_claim(database, "w")
    jobs.release(database, item.id, "w")
    again = must_claim(database, "w")
    assert again.attempts == 1


def test_a_worker_gives_back_what_it_holds_and_nothing_of_anothers(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text"), Document("b", "text")])
    must_claim(database, "w")
    must_claim(database, "other")
    assert jobs.release_held(database, "w") == 1
    assert jobs.release_held(database, "w") == 0
    again = must_claim(database, "w")
    assert (again.document_id, again.attempts) == ("a", 1)
    assert jobs.queue(database)["running"] == 2


def test_the_oldest_document_goes_first(database: Database, generation: Generation) -> None:
    for name in "cab":
        documents.submit(database, [Document(name, "text")])
    assert [must_claim(database, "w").document_id for _ in range(3)] == ["c", "a", "b"]


def test_the_queue_tells_what_waits(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text"), Document("b", "text")])
    claim(database, "w")
    depth = jobs.queue(database)
    assert (depth["queued"], depth["running"], depth["parked"]) == (1, 1, 0)
    assert depth["oldest_seconds"] >= 0


def test_a_document_deleted_as_it_is_requeued_stays_away(
    database: Database, database_url: str, generation: Generation
) -> None:
    documents.submit(database, [Document("a", "text")])
    give_up(database)
    thread, requeued = in_thread(database_url, jobs.requeue)
    with connect(database_url) as other, other.transaction():
        documents.delete(other, "a")
        thread.start()
        eventually(lambda: locked(database) == 1)
    thread.join()
    assert requeued == [0]
    assert item_row(database)["state"] == "superseded"


def test_an_item_without_its_document_holds_nobody_up(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text")])
    documents.submit(database, [Document("b", "text")])
    database.execute("DELETE FROM documents WHERE id = 'a'")
    assert must_claim(database, "w").document_id == "b"


def test_what_was_given_up_once_and_then_done_is_not_told_any_more(database: Database, generation: Generation) -> None:
    first = documents.submit(database, [Document("a", "text")])
    give_up(database)
    # As when it fails while it is submitted again: the new item was queued, and the old one not seen as given up.
    database.execute(
        "INSERT INTO items (document_id, content_hash, generation_id)"
        " SELECT document_id, content_hash, generation_id FROM items"
    )
    item = must_claim(database, "w")
    assert results.complete(database, item, "w", generation, [])
    assert jobs.parked(database, after=0, limit=10) == []
    status = jobs.status(database, first)
    assert status is not None and (status["status"], status["failures"]) == ("done", [])


def test_a_document_that_is_given_up_while_it_is_submitted_is_not_called_unchanged(
    database: Database, generation: Generation
) -> None:
    document = Document("a", "text")
    documents.submit(database, [document])
    give_up(database)
    # The last statement of a submit, whose others saw it at work.
    row = database.execute(
        statement("create_job"), {"ids": [document.id], "hashes": [document.content_hash]}
    ).fetchone()
    assert row is not None
    status = jobs.status(database, row["id"])
    assert status is not None and (status["status"], status["unchanged"]) == ("failed", 0)
