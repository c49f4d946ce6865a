"""What is wanted against what there is: which generation serves, is built, is kept, or goes."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import eventually, in_thread, locked

from store import documents, generations, jobs, results, switching
from store.connection import Database, connect
from store.documents import Document
from store.errors import StoreError
from store.generations import Generation, Index

NAMES = ("a", "b", "c")


@pytest.fixture
def filled(database: Database, generation: Generation) -> Generation:
    """The active generation, which holds three documents."""
    documents.submit(database, [Document(name, f"text of {name}") for name in NAMES])
    index_all(database)
    return generation


@pytest.fixture
def other(index: Index) -> Index:
    return space(index, "2")


def space(index: Index, revision: str) -> Index:
    """Another embedding space, of 16 dimensions."""
    return replace(index, space={**index.space, "revision": revision}, dimension=16, release=f"other-{revision}")


def index_all(database: Database) -> None:
    """What a worker does, as far as the rows show it."""
    database.execute(
        "INSERT INTO indexed (document_id, generation_id, content_hash, chunks)"
        " SELECT document_id, generation_id, content_hash, 0 FROM items WHERE state = 'queued'"
        " ON CONFLICT (document_id, generation_id) DO UPDATE SET content_hash = excluded.content_hash"
    )
    database.execute("UPDATE items SET state = 'done' WHERE state = 'queued'")


def build(database: Database, wanted: Index) -> Generation:
    """Let the wanted generation be built, accepted and served."""
    switching.want(database, wanted)
    index_all(database)
    coming = must_come(database)
    if coming.state == "building":
        assert switching.accept(database, coming, {})
    assert switching.activate(database, coming)
    return generations.serving(database)


def must_come(database: Database) -> Generation:
    coming = generations.upcoming(database)
    assert coming is not None
    return coming


def states(database: Database) -> dict[int, str]:
    return {one.id: one.state for one in generations.every(database)}


def test_an_unknown_space_is_built_from_every_document(database: Database, filled: Generation, other: Index) -> None:
    outcome = switching.want(database, other)
    coming = must_come(database)
    assert outcome.changed
    assert outcome.done == f"building generation {coming.id} beside {filled.id}, queued 3 documents"
    again = switching.want(database, other)
    assert (again.changed, again.done) == (False, f"generation {coming.id} is being built")
    assert states(database) == {filled.id: "active", coming.id: "building"}


def test_a_kept_generation_serves_again_at_once_with_all_that_came_since(
    database: Database, filled: Generation, index: Index, other: Index
) -> None:
    new = build(database, other)
    assert states(database) == {filled.id: "retired", new.id: "active"}
    documents.submit(database, [Document("later", "text")])
    index_all(database)
    outcome = switching.want(database, index)
    assert outcome.done == f"going back to generation {filled.id}"
    assert must_come(database).state == "ready"
    assert switching.activate(database, must_come(database))
    told = switching.status(database)
    assert (told["serving"]["id"], told["serving"]["done"], told["next"]) == (filled.id, 4, None)
    assert [one["id"] for one in told["kept"]] == [new.id]


def test_a_kept_generation_that_lacks_documents_gets_them_first(
    database: Database, filled: Generation, index: Index, other: Index
) -> None:
    build(database, other)
    documents.submit(database, [Document("parked", "text"), Document("waiting", "text")])
    database.execute(
        "UPDATE items SET state = 'parked' WHERE document_id = 'parked' AND generation_id = %s", [filled.id]
    )
    outcome = switching.want(database, index)
    assert outcome.done == f"going back to generation {filled.id}, once it has the documents that it lacks"
    assert must_come(database).state == "building"
    left = database.execute(
        "SELECT document_id FROM items WHERE generation_id = %s AND state = 'queued' ORDER BY 1", [filled.id]
    ).fetchall()
    assert [row["document_id"] for row in left] == ["parked", "waiting"]


def test_giving_up_on_going_back_keeps_what_has_served(
    database: Database, filled: Generation, index: Index, other: Index
) -> None:
    new = build(database, other)
    switching.want(database, index)
    outcome = switching.want(database, other)
    assert outcome.changed and f"kept generation {filled.id} aside" in outcome.done
    assert states(database) == {filled.id: "retired", new.id: "active"}


def test_it_does_not_serve_before_it_has_what_is_found_today(
    database: Database, filled: Generation, other: Index
) -> None:
    switching.want(database, other)
    index_all(database)
    coming = must_come(database)
    switching.accept(database, coming, {})
    documents.submit(database, [Document("late", "text")])
    held = "INSERT INTO indexed SELECT document_id, generation_id, content_hash, 0 FROM items"
    database.execute(f"{held} WHERE document_id = 'late' AND generation_id = %s", [filled.id])
    assert not switching.activate(database, coming)
    assert generations.serving(database).id == filled.id
    index_all(database)
    assert switching.activate(database, coming)


def test_what_was_given_up_meanwhile_is_not_switched_to(
    database: Database, filled: Generation, index: Index, other: Index
) -> None:
    switching.want(database, other)
    index_all(database)
    coming = must_come(database)
    switching.accept(database, coming, {})
    switching.want(database, index)
    assert not switching.activate(database, coming)
    assert not switching.accept(database, coming, {})
    assert states(database) == {filled.id: "active"}


def test_only_so_many_are_kept_the_last_ones(database: Database, filled: Generation, index: Index) -> None:
    served = [filled, *(build(database, space(index, str(number))) for number in (2, 3, 4))]
    assert switching.prune(database, 2) == [served[0].id]
    assert states(database) == {served[1].id: "retired", served[2].id: "retired", served[3].id: "active"}
    assert switching.prune(database, 2) == []


def test_the_one_that_serves_is_not_dropped(database: Database, filled: Generation, other: Index) -> None:
    with pytest.raises(StoreError, match=f"Generation {filled.id} serves; switch to another"):
        switching.drop(database, filled.id)
    with pytest.raises(StoreError, match="There is no generation 99"):
        switching.drop(database, 99)


def test_dropping_takes_tables_items_and_index_along(database: Database, filled: Generation, other: Index) -> None:
    new = build(database, other)
    switching.drop(database, filled.id)
    assert states(database) == {new.id: "active"}
    for table in ("items", "indexed"):
        rows = database.execute(f"SELECT DISTINCT generation_id FROM {table}").fetchall()
        assert rows == [{"generation_id": new.id}]
    left = database.execute(
        "SELECT relname FROM pg_class WHERE relname LIKE %s", [f"generation_{filled.id}_%"]
    ).fetchall()
    assert left == []
    assert [documents.get(database, name)["state"] for name in NAMES] == ["indexed"] * 3  # type: ignore[index]
    assert documents.delete(database, "a")


def test_generations_go_while_documents_come_and_go(
    database: Database, database_url: str, filled: Generation, index: Index
) -> None:
    failures: list[Exception] = []
    stop = threading.Event()

    def write(writer: int) -> None:
        with connect(database_url) as connection:
            for number in range(10_000):
                if stop.is_set():
                    return
                try:
                    documents.submit(connection, [Document(f"{writer}-{number}", "text")])
                    documents.delete(connection, f"{writer}-{number - 2}")
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=write, args=[writer]) for writer in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(2, 12):
            switching.want(database, space(index, str(number)))
            switching.drop(database, must_come(database).id)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert states(database) == {filled.id: "active"}


def test_a_result_is_stored_while_it_goes_back(
    database: Database, database_url: str, filled: Generation, index: Index, other: Index
) -> None:
    """Each holds what the other needs, if they do not take it in one order: the generation's row, and then items."""
    build(database, other)
    documents.submit(database, [Document(name, f"new text of {name}") for name in NAMES])
    database.execute("UPDATE items SET state = 'done' WHERE generation_id <> %s", [filled.id])
    first, second = (jobs.claim(database, "worker", lease_seconds=600, max_attempts=3) for _ in range(2))
    assert first and second and (first.document_id, second.document_id) == ("a", "b")
    threads, outcomes = zip(
        in_thread(database_url, lambda mine: switching.want(mine, index).changed),
        in_thread(database_url, lambda mine: results.complete(mine, second, "worker", filled, [])),
        strict=True,
    )
    with connect(database_url) as third, third.transaction():
        # Somebody gives the first document back: who goes back has the generation by then, and waits for this.
        jobs.release(third, first.id, "worker")
        threads[0].start()
        eventually(lambda: locked(database) == 1)
        threads[1].start()
        eventually(lambda: locked(database) == 2)
    for thread in threads:
        thread.join()
    assert outcomes == ([True], [True]), "one of them was ended by the database"


def test_what_is_refused_stays_until_it_is_tried_again(database: Database, filled: Generation, other: Index) -> None:
    assert not switching.retry(database).changed
    switching.want(database, other)
    index_all(database)
    coming = must_come(database)
    assert switching.refuse(database, coming, "It finds nothing.", {"recall": 0.1}, state="building")
    told = switching.status(database)["next"]
    assert (told["state"], told["why"], told["gate"]) == ("refused", "It finds nothing.", {"recall": 0.1})
    assert switching.want(database, other).done == f"generation {coming.id} is refused: It finds nothing."
    assert switching.retry(database).changed
    assert (must_come(database).state, must_come(database).why) == ("building", None)


def test_another_release_of_a_kept_space_is_compared_once_it_serves(
    database: Database, filled: Generation, index: Index, other: Index
) -> None:
    build(database, other)
    switching.want(database, replace(index, release="rebuilt"))
    assert switching.activate(database, must_come(database))
    now = generations.serving(database)
    assert (now.id, now.release, now.wanted_release) == (filled.id, index.release, "rebuilt")
    assert switching.adopt(database, now, {})
    assert generations.serving(database).release == "rebuilt"


def test_another_chunker_cuts_every_generation_again(
    database: Database, filled: Generation, index: Index, other: Index
) -> None:
    build(database, other)
    outcome = switching.want(database, replace(other, chunker="another"))
    assert outcome.changed and "queued 6 documents to be cut and analysed again" in outcome.done


@pytest.mark.parametrize("value", ["-1", "many", "11"])
def test_a_number_of_kept_generations_that_cannot_be_used_is_named(value: str) -> None:
    with pytest.raises(StoreError, match=f"STORE_KEEP_GENERATIONS is '{value}'; write a whole number"):
        switching.keep_limit({"STORE_KEEP_GENERATIONS": value})


def test_how_long_a_build_takes_is_told_by_its_speed(
    database: Database, filled: Generation, other: Index, releases: Path
) -> None:
    switching.want(database, other)
    coming = must_come(database)
    assert switching.status(database)["next"]["seconds_left"] is None
    database.execute(
        "INSERT INTO indexed (document_id, generation_id, content_hash, chunks, indexed_at)"
        " SELECT id, %s, content_hash, 0, now() - interval '30 s' FROM documents WHERE id = 'a'",
        [coming.id],
    )
    told = switching.status(database)["next"]
    assert (told["documents"], told["done"], told["percent"]) == (3, 1, 33.3)
    assert 55 < told["seconds_left"] < 65, "two documents are left, at one in half a minute"


def test_a_document_claimed_while_all_are_to_be_cut_again_is_cut_again_too(
    database: Database, database_url: str, filled: Generation, index: Index
) -> None:
    documents.submit(database, [Document("new", "text")])
    thread, _ = in_thread(database_url, lambda mine: switching.want(mine, replace(index, chunker="another")))
    with connect(database_url) as worker:
        with worker.transaction():
            item = jobs.claim(worker, "old", lease_seconds=600, max_attempts=3)
            assert item and item.document_id == "new"
            thread.start()
            eventually(lambda: locked(database) == 1)
        thread.join()
        assert not results.complete(worker, item, "old", filled, [])
    again = database.execute("SELECT state, attempts FROM items WHERE id = %s", [item.id]).fetchone()
    assert again == {"state": "queued", "attempts": 0}


def test_a_generation_judged_while_all_are_to_be_cut_again_is_built_on(
    database: Database, database_url: str, filled: Generation, index: Index, other: Index
) -> None:
    switching.want(database, other)
    index_all(database)
    coming = must_come(database)
    thread, _ = in_thread(database_url, lambda mine: switching.want(mine, replace(other, chunker="another")))
    with connect(database_url) as judge, judge.transaction():
        assert switching.accept(judge, coming, {})
        thread.start()
        eventually(lambda: locked(database) == 1)
    thread.join()
    assert must_come(database).state == "building"
    # What was measured before says nothing of what there will be.
    assert not switching.accept(database, coming, {})


def test_one_given_up_that_it_holds_all_the_same_does_not_keep_it_from_serving(
    database: Database, filled: Generation, other: Index
) -> None:
    switching.want(database, other)
    index_all(database)
    coming = must_come(database)
    database.execute(
        "INSERT INTO items (document_id, content_hash, generation_id, state, reason)"
        " SELECT id, content_hash, %s, 'parked', 'no luck' FROM documents WHERE id = 'a'",
        [coming.id],
    )
    assert switching.accept(database, coming, {})
    assert switching.activate(database, coming)


def test_one_that_is_gone_back_to_is_not_dropped_as_superfluous(
    database: Database, database_url: str, filled: Generation, index: Index, other: Index
) -> None:
    build(database, other)
    thread, dropped = in_thread(database_url, lambda mine: switching.prune(mine, 0))
    with connect(database_url) as operator, operator.transaction():
        switching.want(operator, index)
        thread.start()
        eventually(lambda: locked(database) == 1)
    thread.join()
    assert dropped == [[]]
    assert must_come(database).id == filled.id


def test_a_job_waits_on_for_its_document_in_the_generation_that_serves_then(
    database: Database, filled: Generation, other: Index
) -> None:
    switching.want(database, other)
    index_all(database)
    job = documents.submit(database, [Document("new", "text")])
    coming = must_come(database)
    assert switching.accept(database, coming, {})
    assert switching.activate(database, coming), "what is not found yet holds nothing up"
    switching.drop(database, filled.id)
    status = jobs.status(database, job)
    assert status is not None and (status["status"], status["done"]) == ("queued", 0)
    index_all(database)
    status = jobs.status(database, job)
    assert status is not None and (status["status"], status["done"]) == ("done", 1)
