"""The worker builds a generation beside the one that serves: complete, once, whatever happens meanwhile."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import damage
import postgres_server
import pytest
import tiny_models
from box import running_worker
from payload_process import Workers, environment
from waiting import eventually, locked

from app import log
from store import documents, generations, jobs, switching
from store.connection import Database, connect
from store.documents import Document
from store.generations import Generation, Index
from store.migrate import migrate
from text import analyser, chunker

SENTENCES = (
    "반품은 상품을 받은 날부터 {}일 안에 할 수 있습니다. ",
    "Shipping takes {} days and is free for orders above fifty dollars. ",
)


def some_documents(count: int, *, first: int = 0, length: int = 3) -> list[Document]:
    return [
        Document(f"d{number}", "".join(SENTENCES[number % 2].format(number * 100 + line) for line in range(length)))
        for number in range(first, first + count)
    ]


def finish(database: Database) -> None:
    """Return once nothing waits in any generation."""
    eventually(lambda: not any(switching.is_open(database, one) for one in generations.every(database)))


def coming(database: Database) -> Generation:
    found = generations.upcoming(database)
    assert found is not None
    return found


def assert_each_document_once(database: Database, generation: Generation) -> None:
    """What a generation holds is every document as it is now, whole, and nothing else."""
    contents = {row["id"]: row["text"] for row in database.execute("SELECT id, text FROM documents").fetchall()}
    rows = database.execute(
        f"SELECT document_id, ordinal, start_offset, content FROM generation_{generation.id}_chunks"
    ).fetchall()
    assert {row["document_id"] for row in rows} == set(contents)
    assert len({(row["document_id"], row["ordinal"]) for row in rows}) == len(rows)
    for row in rows:
        text, start = contents[row["document_id"]], row["start_offset"]
        assert text[start : start + len(row["content"])] == row["content"]
    for name, text in contents.items():
        mine = [row for row in rows if row["document_id"] == name]
        assert max(row["start_offset"] + len(row["content"]) for row in mine) == len(text.rstrip())
    held = database.execute(
        "SELECT count(*) AS held, sum(indexed.chunks) AS chunks FROM documents JOIN indexed"
        " ON indexed.document_id = documents.id AND indexed.content_hash = documents.content_hash"
        " WHERE generation_id = %s",
        [generation.id],
    ).fetchone()
    assert held == {"held": len(contents), "chunks": len(rows)}
    assert generations.get(database, generation.id).chunks == len(rows)


def test_a_build_is_complete_and_judged(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    other: Index,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    with running_worker(database_url, tmp_path):
        documents.submit(database, some_documents(40))
        finish(database)
        outcome = switching.want(database, other)
        assert outcome.changed and "queued 40 documents" in outcome.done
        eventually(lambda: coming(database).state == "ready")
        again = switching.want(database, other)
    assert (again.changed, again.done) == (False, f"generation {coming(database).id} is ready to serve")
    assert generations.serving(database).id == generation.id, "only the app, with the model loaded, lets it serve"
    assert_each_document_once(database, coming(database))
    told = switching.status(database)["next"]
    assert (told["documents"], told["done"], told["percent"], told["why"]) == (40, 40, 100.0, None)
    assert told["gate"]["recall"] == 1.0 and told["gate"]["behind"] == 0


def test_what_the_serving_generation_lacks_goes_first(database: Database, generation: Generation, other: Index) -> None:
    documents.submit(database, some_documents(3))
    database.execute("UPDATE items SET state = 'done'")
    switching.want(database, other)
    documents.submit(database, [Document("new", "새 문서입니다.")])
    claimed = [jobs.claim(database, "w", lease_seconds=60, max_attempts=3) for _ in range(5)]
    order = [(item.document_id, item.generation_id) for item in claimed if item]
    built = coming(database).id
    assert order[0] == ("new", generation.id)
    assert order[1:] == [("d0", built), ("d1", built), ("d2", built), ("new", built)]


def test_a_job_is_done_once_its_documents_are_found(database: Database, generation: Generation, other: Index) -> None:
    documents.submit(database, some_documents(2))
    switching.want(database, other)
    job = documents.submit(database, [Document("new", "새 문서입니다.")])
    database.execute("UPDATE items SET state = 'done' WHERE generation_id = %s", [generation.id])
    status = jobs.status(database, job)
    assert status is not None and status["status"] == "done"
    assert jobs.queue(database)["queued"] == 0


def test_documents_that_come_change_and_go_meanwhile_are_in_both_once(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    other: Index,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    with running_worker(database_url, tmp_path):
        documents.submit(database, some_documents(60))
        switching.want(database, other)
        for number in range(20):
            documents.submit(database, some_documents(1, first=100 + number))
            documents.submit(database, [Document(f"d{number}", f"{number}번 문서의 새 내용입니다.")])
            documents.delete(database, f"d{number + 30}")
        finish(database)
        eventually(lambda: coming(database).state == "ready")
    for one in generations.every(database):
        assert_each_document_once(database, one)


def test_another_choice_in_the_middle_gives_the_first_one_up(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    other: Index,
    releases: Path,
    model_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    third = generations.read_wanted(
        releases / "releases" / "tiny-embedding-3", chunker=chunker.VERSION, analyser=analyser.VERSION
    )
    with running_worker(database_url, tmp_path):
        documents.submit(database, some_documents(60))
        switching.want(database, other)
        first = coming(database)
        eventually(lambda: generations.get(database, first.id).chunks > 0)
        said = io.StringIO()
        monkeypatch.setattr(log, "stream", said)
        outcome = switching.want(database, third)
        assert f"gave up generation {first.id}" in outcome.done
        eventually(lambda: coming(database).state == "ready")
        eventually(lambda: f'"event": "model_freed", "generation": {first.id}' in said.getvalue())
    assert coming(database).space == third.space
    assert [one.id for one in generations.every(database)] == [generation.id, coming(database).id]
    tables = database.execute("SELECT to_regclass(%s) AS there", [f"generation_{first.id}_chunks"]).fetchone()
    assert tables == {"there": None}
    assert_each_document_once(database, coming(database))
    assert_each_document_once(database, generation)


def test_wanting_what_serves_ends_the_build(
    database: Database, generation: Generation, index: Index, other: Index
) -> None:
    documents.submit(database, some_documents(5))
    switching.want(database, other)
    built = coming(database)
    outcome = switching.want(database, index)
    assert outcome.changed and f"gave up generation {built.id}" in outcome.done
    assert generations.upcoming(database) is None
    left = database.execute("SELECT count(*) AS items FROM items WHERE generation_id <> %s", [generation.id]).fetchone()
    assert left == {"items": 0}


def test_a_document_that_only_the_new_model_cannot_take_refuses_it(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    releases: Path,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    # Without a prefix, a text of padding alone has the vector zero.
    third = generations.read_wanted(
        releases / "releases" / "tiny-embedding-3", chunker=chunker.VERSION, analyser=analyser.VERSION
    )
    with running_worker(database_url, tmp_path):
        documents.submit(database, [*some_documents(5), Document("poison", "[PAD][PAD]")])
        finish(database)
        switching.want(database, third)
        eventually(lambda: coming(database).state == "refused")
        refused = coming(database)
        assert refused.why is not None
        assert refused.why.startswith("1 documents that are found today could not be indexed with tiny-embedding-3")
        assert "poison: " in refused.why
        again = switching.want(database, third)
        assert (again.changed, again.done) == (False, f"generation {refused.id} is refused: {refused.why}")
        assert generations.serving(database).id == generation.id
        documents.submit(database, [Document("poison", "이제는 낱말이 있습니다.")])
        finish(database)
        assert coming(database).state == "refused", "it stays until it is tried again"
        assert switching.retry(database).changed
        eventually(lambda: coming(database).state == "ready")
    assert_each_document_once(database, coming(database))


@pytest.fixture
def own_models(releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with a third release of the first space, tiny-embedding-1-off, whose vectors are others."""
    models = damage.own_models(releases, tmp_path)
    tiny_models.write_embedding_release(models / "releases", release="tiny-embedding-1-off", seed=99)
    for name, value in damage.environment(models).items():
        monkeypatch.setenv(name, value)
    return models


def release_of(index: Index, release: str) -> Index:
    return Index(index.space, index.dimension, release, index.chunker, index.analyser)


def test_a_release_whose_vectors_agree_takes_over_without_embedding_again(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    index: Index,
    own_models: Path,
    tmp_path: Path,
) -> None:
    with running_worker(database_url, tmp_path):
        documents.submit(database, some_documents(20))
        finish(database)
        before = _finished(database)
        outcome = switching.want(database, release_of(index, "tiny-embedding-1-again"))
        assert outcome.changed and "is compared with it before it takes over" in outcome.done
        eventually(lambda: generations.serving(database).release == "tiny-embedding-1-again")
        documents.submit(database, [Document("new", "새 문서입니다.")])
        finish(database)
    now = generations.serving(database)
    assert (now.id, now.wanted_release, now.why) == (generation.id, None, None)
    assert now.gate is not None and now.gate["compared"] >= 20
    assert (now.gate["cosine"], now.gate["overlap"]) == (1.0, 1.0)
    assert len(_finished(database)) == len(before) + 1
    assert not switching.want(database, release_of(index, "tiny-embedding-1-again")).changed


def test_a_release_whose_vectors_disagree_gets_a_generation_of_its_own(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    index: Index,
    own_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = io.StringIO()
    monkeypatch.setattr(log, "stream", said)
    off = release_of(index, "tiny-embedding-1-off")
    with running_worker(database_url, tmp_path):
        documents.submit(database, some_documents(20))
        finish(database)
        switching.want(database, off)
        told = switching.status(database)["next"]
        assert (told["state"], told["release"]) == ("comparing", off.release)
        eventually(lambda: (generations.upcoming(database) or generation).state == "ready")
        built = coming(database)
        assert (built.space, built.release) == (index.space, off.release)
        assert "does not agree with the stored vectors of tiny-embedding-1: their cosine is" in said.getvalue()
        assert not switching.want(database, off).changed
        assert generations.serving(database).release == "tiny-embedding-1"
        assert switching.activate(database, built)
        # Back to the first release: its own vectors are kept.
        assert f"going back to generation {generation.id}" in switching.want(database, index).done
    assert_each_document_once(database, built)


@pytest.fixture
def workers(database_url: str, model_environment: dict[str, str], tmp_path: Path) -> Iterator[Workers]:
    container = environment(
        database_url, model_environment, tmp_path, WORKER_LEASE_SECONDS="1", WORKER_MAX_ATTEMPTS="9"
    )
    started = Workers(container, tmp_path)
    yield started
    started.end()


def test_a_build_goes_on_where_a_killed_worker_left_it(
    database: Database, generation: Generation, other: Index, workers: Workers
) -> None:
    documents.submit(database, some_documents(80, length=40))
    switching.want(database, other)
    built = coming(database)
    worker = workers.start()
    for done in (1, 10, 25, 40, 60):
        eventually(lambda done=done: _held(database, built) >= done)  # type: ignore[misc]
        worker.kill()
        before = _finished(database)
        worker = workers.start()
        eventually(lambda before=before: len(_finished(database)) > len(before))  # type: ignore[misc]
        assert before.items() <= _finished(database).items(), "what was finished was not touched again"
    eventually(lambda: coming(database).state == "ready")
    assert set(workers.indexed().values()) == {1}
    for one in generations.every(database):
        assert_each_document_once(database, one)


def _held(database: Database, generation: Generation) -> int:
    row = database.execute("SELECT count(*) AS held FROM indexed WHERE generation_id = %s", [generation.id]).fetchone()
    assert row is not None
    return int(row["held"])


def _finished(database: Database) -> dict[Any, Any]:
    rows = database.execute("SELECT id, finished_at FROM items WHERE state = 'done'").fetchall()
    return {row["id"]: row["finished_at"] for row in rows}


def test_a_build_goes_on_after_the_database_was_killed(
    own_postgres: postgres_server.Server,
    index: Index,
    other: Index,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    where = own_postgres.conninfo("postgres")
    migrate(where)
    workers = Workers(environment(where, model_environment, tmp_path, WORKER_LEASE_SECONDS="3600"), tmp_path)
    try:
        with connect(where) as database:
            switching.want(database, index)
            documents.submit(database, some_documents(60, length=40))
            switching.want(database, other)
            workers.start()
            built = coming(database)
            eventually(lambda: _held(database, built) > 5)
        own_postgres.stop()
        own_postgres.start()
        with connect(where) as database:
            eventually(lambda: coming(database).state == "ready")
            assert coming(database).id == built.id
            for one in generations.every(database):
                assert_each_document_once(database, one)
    finally:
        workers.end()


def test_a_generation_dropped_while_it_is_judged_is_forgotten(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    other: Index,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    documents.submit(database, some_documents(3))
    switching.want(database, other)
    database.execute("UPDATE items SET state = 'done'")
    built = coming(database)
    with connect(database_url) as operator, ExitStack() as running:
        with operator.transaction():
            # Who judges waits for the table whose chunks it counts.
            operator.execute(f"LOCK TABLE generation_{built.id}_chunks IN ACCESS EXCLUSIVE MODE")
            running.enter_context(running_worker(database_url, tmp_path))
            eventually(lambda: locked(database) == 1)
            generations.drop(operator, built)
        documents.submit(database, [Document("new", "새 문서입니다.")])
        finish(database)
    assert [one.id for one in generations.every(database)] == [generation.id]


def test_a_worker_leaves_alone_what_another_version_is_to_cut(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    index: Index,
    model_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = io.StringIO()
    monkeypatch.setattr(log, "stream", said)
    with running_worker(database_url, tmp_path):
        documents.submit(database, some_documents(1))
        finish(database)
        switching.want(database, replace(index, chunker="of-the-next-version"))
        documents.submit(database, some_documents(1, first=1))
        eventually(lambda: "is to be cut by of-the-next-version" in said.getvalue())
        queued = database.execute("SELECT count(*) AS queued FROM items WHERE state = 'queued'").fetchone()
        assert queued == {"queued": 2}
        # The next version could not be kept, and this one is put back.
        switching.want(database, index)
        finish(database)
    assert_each_document_once(database, generation)
