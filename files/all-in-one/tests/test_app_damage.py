"""The app over releases that were damaged after they were proven, or proven on another kind of machine."""

import shutil
from collections.abc import Callable
from pathlib import Path

import app_process
import damage
import pytest
from app_process import running
from box import running_app
from payload_process import run

from app.settings import Settings

RERANK = {"query": damage.QUERY, "documents": [damage.OTHER, damage.TEXT]}


@pytest.fixture
def models(releases: Path, tmp_path: Path) -> Path:
    return damage.own_models(releases, tmp_path)


@pytest.fixture
def container(ready_database: str, models: Path, tmp_path: Path) -> dict[str, str]:
    return app_process.environment(ready_database, models, tmp_path)


@pytest.mark.parametrize("hurt", [damage.flip, damage.truncate, damage.remove])
def test_with_a_damaged_reranker_the_previous_one_serves(
    models: Path, container: dict[str, str], tmp_path: Path, hurt: Callable[[Path], None]
) -> None:
    hurt(models / "rerank" / "model.onnx")
    with running(container, tmp_path) as app:
        health = app.health("degraded")
        (reason,) = health["degraded"]
        for part in ("tiny-reranker-1", "model.onnx", "tiny-reranker-0 serves instead", "playbooks/models.yml"):
            assert part in reason
        assert health["models"]["reranker"]["release"] == "tiny-reranker-0"
        assert app.ask("/readyz")[0] == 200
        status, answer = app.ask("/v1/rerank", RERANK)
        assert (status, [result["index"] for result in answer["results"]]) == (200, [1, 0])
        assert [event["why"] for event in app.events("degraded")] == [reason]


def test_without_a_whole_reranker_searches_are_not_reranked_and_say_so(
    models: Path, container: dict[str, str], tmp_path: Path
) -> None:
    damage.flip(models / "rerank" / "model.onnx")
    damage.truncate(models / "rerank.previous" / "tokenizer.json")
    with running(container, tmp_path) as app:
        (reason,) = app.health("degraded")["degraded"]
        for part in ("tiny-reranker-1", "tiny-reranker-0", "tokenizer.json", "nothing is reranked"):
            assert part in reason
        assert app.ask("/health")[1]["models"]["reranker"] is None
        assert app.ask("/readyz")[0] == 200
        status, answer = app.ask("/v1/rerank", RERANK)
        assert (status, answer["error"]["code"]) == (503, "reranker_unavailable")
        assert reason in answer["error"]["message"]
        status, answer = app.ask("/search", {"query": damage.QUERY})
        assert status == 200
        assert answer["rerank"]["reason"] == "unavailable"
        assert (answer["rerank"]["ran"], answer["rerank"]["why"]) == (False, f"reranking is off. {reason}")
        assert answer["models"]["reranker"] is None


def test_a_mended_reranker_is_taken_without_a_restart(models: Path, container: dict[str, str], tmp_path: Path) -> None:
    whole = shutil.copytree(models / "releases" / "tiny-reranker-1", tmp_path / "whole")
    damage.flip(models / "rerank" / "model.onnx")
    (models / "rerank.previous").unlink()
    with running(container, tmp_path) as app:
        app.health("degraded")
        shutil.rmtree(models / "releases" / "tiny-reranker-1")
        whole.rename(models / "releases" / "tiny-reranker-1")
        health = app.health("ok")
        assert health["degraded"] == []
        assert health["models"]["reranker"]["release"] == "tiny-reranker-1"
        assert app.ask("/v1/rerank", RERANK)[0] == 200


def test_a_deployment_does_not_begin_degraded(models: Path, container: dict[str, str]) -> None:
    damage.flip(models / "rerank" / "model.onnx")
    done = run("app.candidate", environment=container)
    assert done.returncode == 1 and done.stdout == ""
    said = done.stderr.splitlines()[-1]
    assert said.startswith("selftest: the app is degraded: The wanted reranker cannot serve: ")
    assert "model.onnx was damaged after its release" in said


def test_the_test_of_a_running_app_waits_until_it_is_mended(
    models: Path, container: dict[str, str], tmp_path: Path
) -> None:
    model = models / "releases" / "tiny-reranker-1" / "model.onnx"
    content = model.read_bytes()
    damage.flip(model)
    with running(container, tmp_path) as app:
        app.health("degraded")
        done = run("app.selftest", environment=container | {"SELFTEST_SECONDS": "1"})
        assert done.returncode == 1 and "the app is degraded" in done.stderr
        assert run("app.healthcheck", environment=container).returncode == 0, "a degraded box serves"
        model.write_bytes(content)
        done = run("app.selftest", environment=container)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("linked", [True, False])
def test_with_a_damaged_embedder_another_release_of_its_space_serves(
    models: Path, container: dict[str, str], tmp_path: Path, linked: bool
) -> None:
    damage.flip(models / "emb" / "model.onnx")
    if linked:
        (models / "emb.previous").symlink_to("releases/tiny-embedding-1-again")
    with running(container, tmp_path) as app:
        health = app.health("degraded")
        assert "tiny-embedding-1-again serves instead" in health["degraded"][0]
        assert health["models"]["embedding"]["release"] == "tiny-embedding-1-again"
        assert app.ask("/readyz")[0] == 200
        assert app.ask("/search", {"query": damage.QUERY})[1]["models"]["embedding"] == "tiny-embedding-1-again"


def test_no_release_of_another_space_replaces_the_embedder(
    models: Path, container: dict[str, str], tmp_path: Path
) -> None:
    model = models / "releases" / "tiny-embedding-1" / "model.onnx"
    content = model.read_bytes()
    damage.flip(model)
    damage.remove(models / "releases" / "tiny-embedding-1-again" / "model.onnx")
    (models / "emb.previous").symlink_to("releases/tiny-embedding-2")  # whole, of another space
    with running(container, tmp_path) as app:
        health = app.health("unavailable")
        while "being loaded" in health["degraded"][0]:
            health = app.health("unavailable")
        assert "tiny-embedding-1/model.onnx was damaged" in health["degraded"][0]
        assert "No other release of its embedding space" in health["degraded"][0]
        status, answer = app.ask("/readyz")
        assert (status, answer["error"]["message"]) == (503, health["degraded"][0])
        assert app.ask("/v1/embeddings", {"input": "x"})[0] == 503
        assert run("app.healthcheck", environment=container).returncode == 1
        model.write_bytes(content)
        assert app.health("ok")["models"]["embedding"]["release"] == "tiny-embedding-1"


# Proven on another kind of machine


@pytest.mark.parametrize("wanted", ["emb", "rerank"])
@pytest.mark.parametrize("agrees", [True, False])
def test_golden_results_decide_about_what_another_machine_proved(
    ready_database: str, models: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, agrees: bool
) -> None:
    for name, value in damage.environment(models).items():
        monkeypatch.setenv(name, value)
    damage.prove_elsewhere((models / wanted).resolve(), agrees=agrees)
    with running_app(ready_database, Settings()) as box:
        health = box.client.get("/health").json()
        kind = {"emb": "embedding", "rerank": "reranker"}[wanted]
        found = {name: (model["release"], model["proven_here"]) for name, model in health["models"].items()}
        expected = {"embedding": ("tiny-embedding-1", True), "reranker": ("tiny-reranker-1", True)}
        if agrees:
            expected[kind] = (expected[kind][0], False)
        else:
            expected[kind] = ({"emb": "tiny-embedding-1-again", "rerank": "tiny-reranker-0"}[wanted], True)
        assert found == expected
        assert health["status"] == ("ok" if agrees else "degraded")
        assert agrees or "this machine's results agree only to" in health["degraded"][0]


def test_a_stand_in_serves_only_when_asked_for(
    ready_database: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(models / "releases" / "tiny-reranker-1")
    for name, value in damage.environment(models).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RERANK_FALLBACK", "overlap")
    with running_app(ready_database, Settings()) as box:
        assert box.post("/v1/rerank", **RERANK).json()["results"][0]["index"] == 1
        assert "word overlap, as RERANK_FALLBACK asks" in box.client.get("/health").json()["degraded"][0]
