"""What the operator reads at the end."""

import json
import socket
import threading
from pathlib import Path
from typing import Any

import app_process
import damage
import pytest

from deployment import recap

GATE = {
    "mean_cosine": 0.99876,
    "cosine": 0.9961,
    "spearman": 0.999,
    "top10_overlap": 0.95,
    "top10_overlap_low": 0.941,
    "top10_overlap_high": 0.9584,
    "top1_agreement": 0.98,
    "queries": 312,
    "passages": 800,
    "looks_at_held_out": 1,
    "passed": True,
}
RERANKER_GATE = {"mean_drift": 0.0041, "drift": 0.0312, "spearman": 0.99, "top1_agreement": 0.975, "passed": True}


NOWHERE = "127.0.0.1:9"


@pytest.fixture
def models(releases: Path, tmp_path: Path) -> Path:
    models = damage.own_models(releases, tmp_path)
    for link in ("emb", "rerank"):
        state(models / link)
    return models


def state(release: Path, **content: Any) -> None:
    """Let the release's manifest state this too."""
    manifest = json.loads((release / "manifest.json").read_text(encoding="utf-8"))
    manifest["profile"]["licence"] = "MIT"
    manifest |= {"sizes": {"float_bytes": 471_000_000, "int8_bytes": 119_000_000}, **content}
    (release / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def read(models: Path, folder: Path, address: str = NOWHERE) -> list[str]:
    return recap.lines(folder, folder, models, address)


def test_each_group_of_figures_has_a_line(models: Path, tmp_path: Path) -> None:
    recipe = {"name": "int8 with 4 products in float", "reason": "full INT8 missed the gate (cosine 0.99)"}
    speed = {"float_ms": 20.0, "int8_ms": 8.0, "time_ratio": 0.4}
    state(models / "emb", file="model.int8.onnx", gate=GATE, speed=speed, recipe=recipe)
    state(models / "rerank", gate=RERANKER_GATE, speed={"float_ms": 20.0})
    lines = read(models, tmp_path)
    start = lines.index("Embedding:  tiny-embedding (MIT), 119 MB INT8 (float 471 MB)")
    assert [line.strip() for line in lines[start + 1 :]][:10] == [
        "cosine to its float original: mean 0.9988, minimum 0.9961",
        "top-10 overlap 0.950 (95 %: 0.941 to 0.958), same first result 0.980, rank correlation 0.999, "
        "over 312 held-out queries, looked at once",
        "time a text: 8.0 ms, float 20.0 ms (0.40 times)",
        "int8 with 4 products in float: full INT8 missed the gate (cosine 0.99)",
        "Reranker:   tiny-reranker (MIT), 471 MB, float",
        "drift from its float original's score: mean 0.0041, maximum 0.0312",
        "same first result 0.975, rank correlation 0.990",
        "float: a test's model",
        "previous release, for playbooks/rollback.yml: tiny-reranker-0",
        f"API key:    {tmp_path}/secrets/api_key (on the VM, as root)",
    ]


def test_a_model_that_cannot_be_read_is_said_and_the_rest_is_shown(models: Path, tmp_path: Path) -> None:
    damage.truncate(models / "emb" / "manifest.json")
    damage.remove(models / "rerank")
    lines = read(models, tmp_path)
    assert lines[2] == "What serves could not be asked; these are the models that the links name:"
    assert lines[3].startswith(f"Embedding:  {models}/emb/manifest.json cannot be read")
    assert lines[4].startswith(f"Reranker:   {models}/rerank/manifest.json cannot be read")
    assert lines[-1].startswith("Deployment:")


def test_a_box_that_does_not_answer_is_said_in_one_line(models: Path, tmp_path: Path) -> None:
    lines = read(models, tmp_path)
    assert lines[1].startswith("NO ANSWER from http://127.0.0.1:9/health: ")


def test_something_else_on_the_port_is_no_answer(models: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        threading.Thread(target=_talk_otherwise, args=[server]).start()
        lines = read(models, tmp_path, f"127.0.0.1:{server.getsockname()[1]}")
    assert lines[1].startswith("NO ANSWER from ")


def _talk_otherwise(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"SSH-2.0-OpenSSH_10.0\r\n")


def test_what_runs_says_whether_it_is_degraded(ready_database: str, models: Path, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    model = models / "releases" / "tiny-reranker-1" / "model.onnx"
    content = model.read_bytes()
    damage.flip(model)
    environment = app_process.environment(ready_database, models, secrets)
    with app_process.running(environment, tmp_path) as app:
        app.health("degraded")
        address = f"0.0.0.0:{environment['APP_PORT']}"
        lines = read(models, tmp_path, address)
        assert lines[0] == f"The box answers: http://VM:{environment['APP_PORT']}"
        assert lines[1].startswith("DEGRADED: The wanted reranker cannot serve: ")
        assert "tiny-reranker-0 serves instead" in lines[1]
        (secrets / "api_key").unlink()
        assert read(models, tmp_path, address)[1] == "DEGRADED: /health says no more without the key"
        (secrets / "api_key").write_text("the-key\n", encoding="utf-8")
        model.write_bytes(content)
        app.health("ok")
        assert read(models, tmp_path, address)[1].startswith("Embedding:")


def test_it_tells_what_serves_where_the_links_name_something_else(
    ready_database: str, models: Path, tmp_path: Path
) -> None:
    """A reranker that cannot serve, whose previous release does, and then links that were changed by hand."""
    state(models / "rerank", gate=RERANKER_GATE)
    state(models / "releases" / "tiny-reranker-0", gate={})
    damage.flip(models / "releases" / "tiny-reranker-1" / "model.onnx")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    environment = app_process.environment(ready_database, models, secrets)
    with app_process.running(environment, tmp_path) as app:
        app.health("degraded")
        address = f"127.0.0.1:{environment['APP_PORT']}"
        lines = read(models, tmp_path, address)
        start = next(number for number, line in enumerate(lines) if line.startswith("Reranker:"))
        assert not any("drift" in line for line in lines[start:]), "the damaged release's figures"
        assert f"tiny-reranker-0 serves, though {models}/rerank names tiny-reranker-1" in lines[-4].strip()
        (models / "emb").unlink()
        (models / "emb").symlink_to("releases/tiny-embedding-2")
        said = f"tiny-embedding-1 serves, though {models}/emb names tiny-embedding-2"
        assert any(said in line for line in read(models, tmp_path, address))
