"""The worker over an embedding release that was damaged after it was proven, or proven on another kind of machine."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import damage
import payload_process
import pytest
from payload_process import Process, run
from waiting import eventually

from store import documents, jobs
from store.connection import Database
from store.documents import Document
from store.generations import Generation, get


@pytest.fixture
def models(releases: Path, tmp_path: Path) -> Path:
    return damage.own_models(releases, tmp_path)


@pytest.fixture
def start(
    database_url: str, generation: Generation, models: Path, tmp_path: Path
) -> Iterator[Callable[[], dict[str, str]]]:
    """Starts a worker over `models`; gives its environment. It is gone after the test."""
    environment = payload_process.environment(database_url, damage.environment(models), tmp_path)
    started: list[Process] = []

    def begin() -> dict[str, str]:
        started.append(Process("worker", environment=environment, output=tmp_path / "output"))
        return environment

    yield begin
    for process in started:
        process.end()


def why(folder: Path, event: str) -> list[str]:
    """The reasons that the worker logged."""
    lines = [json.loads(line) for line in (folder / "output").read_text(encoding="utf-8").splitlines()]
    return [line["why"] for line in lines if line["event"] == event]


def index(database: Database) -> str:
    """The state of a document that was submitted, once it is not waiting any more."""
    job = documents.submit(database, [Document("a", damage.TEXT)])
    eventually(lambda: (jobs.status(database, job) or {})["status"] in ("done", "failed"))
    status = jobs.status(database, job)
    assert status is not None
    return str(status["status"])


def test_another_release_of_the_same_space_indexes_in_its_place(
    models: Path, database: Database, start: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    damage.flip(models / "emb" / "model.onnx")
    start()
    assert index(database) == "done"
    (reason,) = why(tmp_path, "degraded")
    assert "tiny-embedding-1/model.onnx was damaged" in reason and "tiny-embedding-1-again serves instead" in reason


def test_without_one_it_waits_says_why_and_goes_on_once_it_is_mended(
    models: Path, database: Database, generation: Generation, start: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    model = models / "releases" / "tiny-embedding-1" / "model.onnx"
    content = model.read_bytes()
    damage.truncate(model)
    damage.remove(models / "releases" / "tiny-embedding-1-again" / "tokenizer.json")
    job = documents.submit(database, [Document("a", damage.TEXT)])
    environment = start()
    eventually(lambda: (tmp_path / "output").exists() and why(tmp_path, "waiting"))
    (reason,) = why(tmp_path, "waiting")
    assert "No other release of its embedding space can take its place" in reason
    assert run("worker.healthcheck", environment=environment).returncode == 1
    item = database.execute("SELECT state, attempts FROM items").fetchone()
    assert item == {"state": "queued", "attempts": 0}
    model.write_bytes(content)
    eventually(lambda: (jobs.status(database, job) or {})["status"] == "done")
    assert get(database, generation.id).chunks == 1
    assert why(tmp_path, "waiting") == [reason], "it says so once"


@pytest.mark.parametrize("agrees", [True, False])
def test_golden_results_decide_about_what_another_machine_proved(
    models: Path, database: Database, start: Callable[[], dict[str, str]], tmp_path: Path, agrees: bool
) -> None:
    damage.prove_elsewhere((models / "emb").resolve(), agrees=agrees)
    start()
    assert index(database) == "done"
    reasons = why(tmp_path, "degraded")
    assert len(reasons) == (0 if agrees else 1)
    assert agrees or "this machine's results agree only to" in reasons[0]
