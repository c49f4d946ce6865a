"""The commands of the app's container."""

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from payload_process import ROOT, Process, environment, run


@pytest.fixture
def container(ready_database: str, model_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return environment(ready_database, model_environment, tmp_path, APP_PORT=str(port))


def test_a_candidate_answers_before_anything_is_published(container: dict[str, str]) -> None:
    done = run("app.candidate", environment=container)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert report["ok"] and (report["dimension"], report["embedding"]) == (32, "tiny-embedding")


def test_a_candidate_with_a_missing_model_fails_in_one_sentence(container: dict[str, str]) -> None:
    broken = container | {"RERANK_RELEASE": "gone", "SELFTEST_SECONDS": "3"}
    done = run("app.candidate", environment=broken)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("selftest: the app is degraded: The wanted reranker cannot serve: ")
    assert "releases/gone: there is no such model" in said
    assert done.stdout == ""


def test_the_selftest_of_a_running_app_loads_nothing_that_takes_long() -> None:
    code = "import sys, app.selftest; print(sorted({'fastapi', 'numpy', 'psycopg'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_nothing_running_is_said_in_one_sentence(container: dict[str, str]) -> None:
    for module in ("app.healthcheck", "app.selftest"):
        done = run(module, environment=container | {"SELFTEST_SECONDS": "1"})
        assert done.returncode == 1
        assert "Traceback" not in done.stderr and container["APP_PORT"] in done.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [("API_KEYS_FILE", "/nowhere"), ("DATABASE_PASSWORD_FILE", "/nowhere"), ("APP_PORT", "x")],
)
def test_a_wrong_variable_stops_it_with_one_sentence(container: dict[str, str], variable: str, value: str) -> None:
    done = run("app", environment=container | {variable: value})
    assert done.returncode == 1
    assert variable in done.stderr and len(done.stderr.splitlines()) == 1


def test_it_serves_then_finishes_what_has_begun_when_told_to_stop(container: dict[str, str], tmp_path: Path) -> None:
    app = Process("app", environment=container, output=tmp_path / "output")
    try:
        assert run("app.selftest", environment=container).returncode == 0
        assert run("app.healthcheck", environment=container).returncode == 0
        answers: list[Any] = []
        texts = [f"{number}번 상품의 반품은 받은 날부터 7일 안에 할 수 있습니다. " * 20 for number in range(1500)]
        request = threading.Thread(target=lambda: answers.append(_embed(container["APP_PORT"], texts)))
        request.start()
        time.sleep(0.3)
        begun_before = not answers
        assert app.terminate() == 0
        request.join()
        assert begun_before, "the request was over before the signal: it must take longer"
        assert len(answers[0]["data"]) == len(texts)
        assert '"event": "stopped"' in (tmp_path / "output").read_text(encoding="utf-8")
    finally:
        app.end()


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2, 0.4])
def test_told_to_stop_while_it_starts_it_ends_in_order(container: dict[str, str], tmp_path: Path, delay: float) -> None:
    app = Process("app", environment=container, output=tmp_path / "output")
    try:
        _wait_for(lambda: '"event": "starting"' in (tmp_path / "output").read_text(encoding="utf-8"))
        time.sleep(delay)
        assert app.terminate() == 0, (tmp_path / "output").read_text(encoding="utf-8")
        assert '"event": "stopped"' in (tmp_path / "output").read_text(encoding="utf-8").splitlines()[-1]
    finally:
        app.end()


def test_work_that_outlasts_the_patience_is_left_and_it_ends_in_order(
    container: dict[str, str], tmp_path: Path
) -> None:
    hasty = container | {"DRAIN_SECONDS": "1"}
    app = Process("app", environment=hasty, output=tmp_path / "output")
    try:
        assert run("app.selftest", environment=hasty).returncode == 0
        texts = [f"{number}번 상품의 반품은 받은 날부터 7일 안에 할 수 있습니다. " * 40 for number in range(2000)]
        answers: list[Any] = []
        request = threading.Thread(target=lambda: answers.append(_cut_off(container["APP_PORT"], texts)))
        request.start()
        time.sleep(1)
        assert app.terminate() == 0, (tmp_path / "output").read_text(encoding="utf-8")
        request.join()
        assert answers == [True], "the request was over before the signal: it must take longer"
        assert '"event": "stopped"' in (tmp_path / "output").read_text(encoding="utf-8")
    finally:
        app.end()


def test_a_client_that_keeps_its_connection_does_not_keep_it_from_stopping(
    container: dict[str, str], tmp_path: Path
) -> None:
    patient = container | {"DRAIN_SECONDS": "3600"}
    app = Process("app", environment=patient, output=tmp_path / "output")
    try:
        assert run("app.selftest", environment=patient).returncode == 0
        client = http.client.HTTPConnection("127.0.0.1", int(container["APP_PORT"]), timeout=60)
        client.request("GET", "/livez")
        client.getresponse().read()
        assert app.terminate() == 0
        client.close()
    finally:
        app.end()


def test_what_takes_longer_than_it_may_is_given_up(container: dict[str, str], tmp_path: Path) -> None:
    hasty = container | {"DRAIN_SECONDS": "1", "BULK_WAIT_MS": "600000"}
    app = Process("app", environment=hasty, output=tmp_path / "output")
    failed: list[Exception] = []

    def ask(client: int) -> None:
        texts = [f"상품 {client} {number}: " + "long words and more of them " * 60 for number in range(1900)]
        try:
            _embed(container["APP_PORT"], texts)
        except (OSError, http.client.HTTPException) as error:
            failed.append(error)

    clients = [threading.Thread(target=ask, args=[client]) for client in range(6)]
    try:
        assert run("app.selftest", environment=hasty).returncode == 0
        for client in clients:
            client.start()
        _wait_for(lambda: _bulk_tokens(container["APP_PORT"]) > 500_000)
        assert app.terminate(patience=15) == 0
        for client in clients:
            client.join()
        assert len(failed) == len(clients)
        assert '"event": "stopped"' in (tmp_path / "output").read_text(encoding="utf-8")
    finally:
        app.end()


def test_what_a_client_that_hung_up_asked_for_is_not_computed_to_its_end(
    container: dict[str, str], tmp_path: Path
) -> None:
    app = Process("app", environment=container, output=tmp_path / "output")
    try:
        assert run("app.selftest", environment=container).returncode == 0
        texts = [f"상품 {number}: " + "long words and more of them " * 60 for number in range(2000)]
        body = json.dumps({"input": texts}).encode()
        head = (
            f"POST /v1/embeddings HTTP/1.1\r\nhost: box\r\nauthorization: Bearer the-key\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", int(container["APP_PORT"]))) as client:
            client.sendall(head.encode() + body)
            _wait_for(lambda: _bulk_tokens(container["APP_PORT"]) > 0)
        _wait_for(lambda: _bulk_tokens(container["APP_PORT"]) == 0)
        lines = [json.loads(line) for line in (tmp_path / "output").read_text(encoding="utf-8").splitlines()]
        statuses = [line["status"] for line in lines if line.get("path") == "/v1/embeddings" and line["status"] != 200]
        assert statuses == [499]
    finally:
        app.end()


def _bulk_tokens(port: str) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/health", headers={"authorization": "Bearer the-key"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(json.load(answer)["inference"]["bulk"]["tokens"])


def _wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def _embed(port: str, texts: list[str]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/embeddings",
        data=json.dumps({"input": texts}).encode(),
        headers={"authorization": "Bearer the-key", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _cut_off(port: str, texts: list[str]) -> bool:
    """True when the app ends before it answers, in whichever way the client sees that."""
    try:
        _embed(port, texts)
    except (OSError, http.client.HTTPException):
        return True
    return False
