"""Workers as processes that are killed, stopped, and take over from each other."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest
from payload_process import Process, Workers, environment, run

from store import documents, generations, jobs, switching
from store.connection import Database, connect
from store.documents import Document
from store.generations import Generation, get
from store.migrate import migrate

# Long enough that indexing takes seconds even with the small model: there is a middle to be killed in.
LONG = "반품은 상품을 받은 날부터 7일 안에 할 수 있습니다. 환불은 카드 승인 취소로 처리됩니다. " * 6000
PATIENCE = 90.0  # seconds


@pytest.fixture
def workers(
    database_url: str, generation: Generation, model_environment: dict[str, str], tmp_path: Path
) -> Iterator[Workers]:
    container = environment(database_url, model_environment, tmp_path, WORKER_LEASE_SECONDS="2")
    started = Workers(container, tmp_path)
    yield started
    started.end()


def wait_for_state(database: Database, state: str) -> dict[str, object]:
    """The only item, once it is in the state."""
    give_up = time.monotonic() + PATIENCE
    while True:
        row = database.execute("SELECT * FROM items").fetchone()
        assert row is not None
        if row["state"] == state:
            return row
        assert time.monotonic() < give_up, row
        time.sleep(0.02)


def wait_for_event(worker: Process, name: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while f'"event": "{name}"' not in worker.output.read_text(encoding="utf-8"):
        assert time.monotonic() < give_up, name
        time.sleep(0.02)


def test_a_killed_workers_document_is_finished_by_another_exactly_once(
    workers: Workers, database: Database, generation: Generation
) -> None:
    job = documents.submit(database, [Document("long", LONG)])
    first = workers.start()
    wait_for_state(database, "running")
    time.sleep(0.5)
    first.kill()
    left = wait_for_state(database, "running")
    assert get(database, generation.id).chunks == 0, "a half-done document must leave no trace"

    workers.start()
    done = wait_for_state(database, "done")
    assert (left["attempts"], done["attempts"]) == (1, 2)
    status = jobs.status(database, job)
    assert status is not None and (status["status"], status["done"]) == ("done", 1)
    ordinals = database.execute(
        f"SELECT count(*) AS chunks, count(DISTINCT ordinal) AS ordinals, min(start_offset) AS start,"
        f" max(end_offset) AS end FROM generation_{generation.id}_chunks"
    ).fetchone()
    assert ordinals is not None
    assert ordinals["chunks"] == ordinals["ordinals"] == get(database, generation.id).chunks
    assert (ordinals["start"], ordinals["end"]) == (0, len(LONG.rstrip()))


def test_a_worker_at_work_keeps_its_lease_beyond_its_length(workers: Workers, database: Database) -> None:
    documents.submit(database, [Document("long", LONG)])
    workers.start()
    started = wait_for_state(database, "running")
    claimed = time.monotonic()
    workers.start()
    done = wait_for_state(database, "done")
    assert time.monotonic() - claimed > 2, "the document must take longer than a lease"
    assert (started["attempts"], done["attempts"]) == (1, 1)


def test_a_stopped_worker_gives_its_document_back_at_once(workers: Workers, database: Database) -> None:
    documents.submit(database, [Document("long", LONG)])
    worker = workers.start()
    wait_for_state(database, "running")
    time.sleep(0.5)
    stopping = time.monotonic()
    assert worker.terminate() == 0
    assert time.monotonic() - stopping < 5
    item = wait_for_state(database, "queued")
    assert item["attempts"] == 0
    assert '"event": "released"' in worker.output.read_text(encoding="utf-8")


@pytest.mark.parametrize("event", ["starting", "model_loaded"])
def test_a_worker_told_to_stop_with_nothing_at_hand_ends_in_order(workers: Workers, event: str) -> None:
    worker = workers.start()
    wait_for_event(worker, event)
    assert worker.terminate() == 0
    assert '"event": "stopped"' in worker.output.read_text(encoding="utf-8")


def test_a_worker_that_waits_for_its_database_stops_when_told(workers: Workers, tmp_path: Path) -> None:
    workers.container["DATABASE_HOST"] = str(tmp_path)
    worker = workers.start()
    wait_for_event(worker, "waiting")
    assert worker.terminate() == 0
    assert '"event": "stopped"' in worker.output.read_text(encoding="utf-8")


def test_the_document_at_hand_when_the_database_goes_away_loses_no_attempt(
    own_postgres: postgres_server.Server,
    index: generations.Index,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    where = own_postgres.conninfo("postgres")
    migrate(where)
    # Leases outlast the test: what comes back came back because the worker gave it back.
    workers = Workers(environment(where, model_environment, tmp_path, WORKER_LEASE_SECONDS="3600"), tmp_path)
    try:
        with connect(where) as database:
            switching.want(database, index)
            documents.submit(database, [Document("long", LONG)])
            worker = workers.start()
            wait_for_state(database, "running")
        own_postgres.stop()
        wait_for_event(worker, "waiting")
        own_postgres.start()
        with connect(where) as database:
            assert wait_for_state(database, "done")["attempts"] == 1
    finally:
        workers.end()


def test_a_document_replaced_in_the_middle_ends_as_the_new_one(
    workers: Workers, database: Database, generation: Generation
) -> None:
    documents.submit(database, [Document("a", LONG)])
    workers.start()
    wait_for_state(database, "running")
    job = documents.submit(database, [Document("a", "새 내용입니다.")])
    give_up = time.monotonic() + PATIENCE
    while (status := jobs.status(database, job)) is None or status["status"] != "done":
        assert time.monotonic() < give_up, status
        time.sleep(0.05)
    rows = database.execute(f"SELECT content FROM generation_{generation.id}_chunks").fetchall()
    assert [row["content"] for row in rows] == ["새 내용입니다."]


def test_the_health_check_follows_the_heartbeat(workers: Workers) -> None:
    assert run("worker.healthcheck", environment=workers.container).returncode == 1
    workers.start()
    heartbeat = Path(workers.container["WORKER_HEARTBEAT_FILE"])
    give_up = time.monotonic() + PATIENCE
    while not heartbeat.exists():
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert run("worker.healthcheck", environment=workers.container).returncode == 0
    workers.end()
    os.utime(heartbeat, (0, 0))
    stale = run("worker.healthcheck", environment=workers.container)
    assert stale.returncode == 1 and "got nowhere" in stale.stderr


def test_a_wrong_variable_stops_it_with_one_sentence(workers: Workers) -> None:
    done = run("worker", environment=workers.container | {"WORKER_THREADS": "none"})
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["worker: WORKER_THREADS is 'none'; write a number from 1 to 256."]
