"""The app switches from one generation to another while it serves: no failed request, no mixed result."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import app_process
import damage
import payload_process
import pytest
import waiting
from app_process import App
from box import Box, running_app, running_worker
from payload_process import Process
from prometheus_client import generate_latest

from app import models
from app.settings import Settings
from pipeline import cgroup
from store import documents, generations, switching
from store.connection import Database
from store.documents import Document
from store.generations import Generation, Index
from text import analyser, chunker

eventually = partial(waiting.eventually, seconds=90.0)
QUERIES = ("반품은 며칠 안에", "free shipping", "비밀번호 재설정", "error code E-204")


def wanted(releases: Path, release: str) -> Index:
    return generations.read_wanted(releases / "releases" / release, chunker=chunker.VERSION, analyser=analyser.VERSION)


def some_documents(count: int, *, first: int = 0) -> list[Document]:
    return [
        Document(f"d{number}", f"{number}번 상품의 반품은 {number}일 안에. Item {number} is free.")
        for number in range(first, first + count)
    ]


@dataclass
class Load:
    """Clients that search all the time, and one that writes."""

    ask: Callable[[str, dict[str, Any] | None], tuple[int, Any]]
    answers: list[tuple[int, str]] = field(default_factory=list)  # generation and release of each
    failures: list[Any] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def search(self) -> None:
        for number in range(1_000_000):
            # The worker, which gives way to searches, needs a core now and then.
            if self.stop.wait(0.02):
                return
            try:
                status, answer = self.ask("/search", {"query": f"{QUERIES[number % 4]} {number}", "top_k": 5})
            except OSError as error:
                status, answer = 0, repr(error)
            if status == 200 and answer["results"]:
                self.answers.append((answer["generation"], answer["models"]["embedding"]))
            else:
                self.failures.append((status, answer))

    def write(self) -> None:
        for number in range(1_000_000):
            if self.stop.wait(0.3):
                return
            name = f"w{number}"
            status, answer = self.ask("/documents", {"id": name, "text": f"새로 쓴 문서 표식{number} 입니다."})
            self.written.append(name) if status == 202 else self.failures.append((status, answer))

    @contextmanager
    def running(self, clients: int = 3) -> Iterator[None]:
        threads = [threading.Thread(target=self.search) for _ in range(clients)]
        threads.append(threading.Thread(target=self.write))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()


@pytest.fixture
def container(database_url: str, generation: Generation, releases: Path, tmp_path: Path) -> dict[str, str]:
    return app_process.environment(database_url, releases, tmp_path)


@pytest.fixture
def worker(container: dict[str, str], tmp_path: Path) -> Iterator[Process]:
    process = Process("worker", environment=container, output=tmp_path / "worker")
    yield process
    process.end()


def serving(database: Database) -> int:
    return generations.serving(database).id


def all_found(app: App, names: list[str]) -> list[str]:
    """The written documents that a search for their own words does not find."""
    lost = []
    for name in names:
        query = {"query": f"표식{name.removeprefix('w')}", "fusion": "words", "top_k": 100, "rerank": "off"}
        status, answer = app.ask("/search", query)
        assert status == 200, answer
        if name not in [result["document_id"] for result in answer["results"]]:
            lost.append(name)
    return lost


def test_it_switches_and_goes_back_under_load(
    *,
    container: dict[str, str],
    worker: Process,
    database: Database,
    generation: Generation,
    index: Index,
    other: Index,
    tmp_path: Path,
) -> None:
    documents.submit(database, some_documents(150))
    with app_process.running(container, tmp_path) as app:
        app.health("ok")
        eventually(lambda: not switching.is_open(database, generation))
        load = Load(app.ask)
        with load.running():
            switching.want(database, other)
            eventually(lambda: serving(database) != generation.id)
            new = serving(database)
            eventually(lambda: (new, "tiny-embedding-2") in load.answers[-1:])
            assert app.health("ok")["models"]["embedding"]["release"] == "tiny-embedding-2"
            time.sleep(1)
            outcome = switching.want(database, index)
            assert f"going back to generation {generation.id}" in outcome.done
            eventually(lambda: serving(database) == generation.id)
            eventually(lambda: (generation.id, "tiny-embedding-1") in load.answers[-1:])
        assert load.failures == []
        assert set(load.answers) == {(generation.id, "tiny-embedding-1"), (new, "tiny-embedding-2")}
        eventually(lambda: not any(switching.is_open(database, one) for one in generations.every(database)))
        assert len(load.written) > 10 and all_found(app, load.written) == []
        told = app.health("ok")["generations"]
        assert (told["serving"]["id"], told["next"], [one["id"] for one in told["kept"]]) == (
            generation.id,
            None,
            [new],
        )
        assert told["serving"]["done"] == told["kept"][0]["done"] == told["serving"]["documents"]
        eventually(lambda: len(app.events("model_freed")) == 2)
        print(f"{len(load.answers)} searches, {len(load.written)} documents written, none failed")


def test_without_kept_generations_what_is_in_flight_is_answered_by_the_new_one(
    *,
    container: dict[str, str],
    worker: Process,
    database: Database,
    generation: Generation,
    index: Index,
    other: Index,
    tmp_path: Path,
) -> None:
    documents.submit(database, some_documents(40))
    with app_process.running(container | {"STORE_KEEP_GENERATIONS": "0"}, tmp_path) as app:
        app.health("ok")
        load = Load(app.ask)
        eventually(lambda: not switching.is_open(database, generation))
        with load.running(6):
            for choice in (other, index, other):
                before = serving(database)
                switching.want(database, choice)
                eventually(lambda before=before: serving(database) != before)  # type: ignore[misc]
                eventually(lambda: len(generations.every(database)) == 1)
        assert load.failures == []
        assert len({generation for generation, _ in load.answers}) >= 3


def test_an_app_killed_in_the_middle_serves_what_the_database_says(
    *,
    container: dict[str, str],
    worker: Process,
    database: Database,
    generation: Generation,
    index: Index,
    other: Index,
    tmp_path: Path,
) -> None:
    documents.submit(database, some_documents(30))
    pauses = random.Random(6)
    seen = set()
    for turn in range(6):
        with app_process.running(container, tmp_path) as app:
            app.health("ok")
            switching.want(database, other if serving(database) == generation.id else index)
            eventually(lambda: _past_building(database))
            time.sleep(pauses.uniform(0, 1.5))
            # The end of the context kills it.
        with app_process.running(container, tmp_path) as app:
            app.health("ok")
            status, answer = app.ask("/search", {"query": f"반품 {turn}"})
            row = generations.get(database, answer["generation"])
            assert status == 200 and answer["results"]
            assert answer["models"]["embedding"] == row.release
            eventually(lambda: generations.upcoming(database) is None)
            status, answer = app.ask("/search", {"query": f"환불 {turn}"})
            seen.add(serving(database))
    assert len(seen) == 2
    rows = database.execute("SELECT state FROM generations ORDER BY state").fetchall()
    assert [row["state"] for row in rows] == ["active", "retired"]


def _past_building(database: Database) -> bool:
    coming = generations.upcoming(database)
    return coming is None or coming.state == "ready"


def test_a_second_model_that_does_not_fit_is_said_and_loaded_once_there_is_room(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    other: Index,
    model_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    documents.submit(database, some_documents(5))
    with running_worker(database_url, tmp_path):
        switching.want(database, other)
        eventually(lambda: _past_building(database))
    monkeypatch.setattr(models, "AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(cgroup, "memory", lambda: cgroup.Memory(used=190 << 20, limit=200 << 20))
    with running_app(database_url, Settings()) as box:
        eventually(lambda: _health(box)["generations"]["next"]["why"])
        health = _health(box)
        coming = health["generations"]["next"]
        assert (health["status"], health["degraded"]) == ("degraded", [coming["why"]])
        assert coming["state"] == "ready" and "10 MB of the container's are free" in coming["why"]
        assert "stack_app_memory_mb" in coming["why"]
        told = generate_latest(box.services.metrics.registry).decode()
        assert 'onebox_next_generation{release="tiny-embedding-2",state="ready"} 1.0' in told
        assert 'onebox_next_generation_documents{state="done"} 5.0' in told
        assert box.post("/search", query="반품").json()["generation"] == generation.id
        monkeypatch.setattr(cgroup, "memory", lambda: cgroup.Memory(used=190 << 20, limit=None))
        eventually(lambda: serving(database) == coming["id"])
        eventually(lambda: _health(box)["status"] == "ok")
        assert box.post("/search", query="반품").json()["generation"] == coming["id"]


def test_a_refused_generation_is_said_and_no_fault_of_the_deployment(
    *,
    container: dict[str, str],
    worker: Process,
    database: Database,
    generation: Generation,
    releases: Path,
    tmp_path: Path,
) -> None:
    # Without a prefix, a text of padding alone has the vector zero.
    documents.submit(database, [*some_documents(3), Document("poison", "[PAD][PAD]")])
    eventually(lambda: not switching.is_open(database, generation))
    switching.want(database, wanted(releases, "tiny-embedding-3"))
    with app_process.running(container, tmp_path) as app:
        health = app.health("degraded")
        coming = health["generations"]["next"]
        assert (coming["state"], health["degraded"]) == ("refused", [coming["why"]])
        assert app.ask("/readyz")[0] == 200
        done = payload_process.run("app.selftest", environment=container)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["generation"] == generation.id


def test_a_release_that_agrees_serves_from_one_request_to_the_next(
    *,
    container: dict[str, str],
    worker: Process,
    database: Database,
    generation: Generation,
    releases: Path,
    tmp_path: Path,
) -> None:
    documents.submit(database, some_documents(20))
    with app_process.running(container, tmp_path) as app:
        app.health("ok")
        eventually(lambda: not switching.is_open(database, generation))
        load = Load(app.ask)
        with load.running():
            switching.want(database, wanted(releases, "tiny-embedding-1-again"))
            eventually(lambda: (generation.id, "tiny-embedding-1-again") in load.answers[-1:])
        assert load.failures == []
        assert set(load.answers) == {(generation.id, f"tiny-embedding-1{again}") for again in ("", "-again")}
        assert app.health("ok")["generations"]["next"] is None


def test_a_candidate_leaves_the_switch_to_the_app_that_runs(
    *,
    container: dict[str, str],
    worker: Process,
    database: Database,
    generation: Generation,
    other: Index,
) -> None:
    documents.submit(database, some_documents(3))
    switching.want(database, other)
    eventually(lambda: _past_building(database))
    done = payload_process.run("app.candidate", environment=container)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["generation"] == serving(database) == generation.id


def test_a_damaged_model_does_not_come_to_serve_until_it_is_mended(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    other: Index,
    releases: Path,
    tmp_path: Path,
) -> None:
    own = damage.own_models(releases, tmp_path)
    container = app_process.environment(database_url, own, tmp_path)
    documents.submit(database, some_documents(3))
    switching.want(database, other)
    worker = Process("worker", environment=container, output=tmp_path / "worker")
    try:
        eventually(lambda: _past_building(database))
    finally:
        worker.end()
    model = own / "releases" / "tiny-embedding-2" / "model.onnx"
    content = model.read_bytes()
    damage.flip(model)
    with app_process.running(container, tmp_path) as app:
        app.health("degraded")
        assert "tiny-embedding-2/model.onnx was damaged" in app.health("degraded")["degraded"][0]
        assert app.ask("/search", {"query": "반품"})[1]["generation"] == generation.id
        model.write_bytes(content)
        app.health("ok")
        eventually(lambda: serving(database) != generation.id)


def _health(box: Box) -> dict[str, Any]:
    health: dict[str, Any] = box.client.get("/health").json()
    return health
