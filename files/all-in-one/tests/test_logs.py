"""What app and worker write, as containers run them: lines that lead from answer to request, and quote nobody."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from payload_process import Process, environment, run
from waiting import PATIENCE, eventually

from store.connection import connect

SECRET = "비밀스러운내용"  # in every text, id, key and header below


class Box:
    """An app and a worker that write all they ever write, into the files `app` and `worker`."""

    def __init__(self, container: dict[str, str], folder: Path) -> None:
        self.container = container
        self.folder = folder

    def ask(
        self, method: str, path: str, body: bytes = b"", *, key: str = "the-key", identity: str = ""
    ) -> tuple[int, str, bytes]:
        """(status, request id, body)"""
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        if identity:
            headers["x-request-id"] = identity
        url = f"http://127.0.0.1:{self.container['APP_PORT']}{path}"
        request = urllib.request.Request(
            url, body or None, {k: v.encode().decode("latin-1") for k, v in headers.items()}
        )
        request.method = method
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.headers["x-request-id"], answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["x-request-id"], error.read()

    def post(self, path: str, **body: Any) -> tuple[int, str, bytes]:
        return self.ask("POST", path, json.dumps(body, ensure_ascii=False).encode())

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text(name).splitlines()]

    def requests(self) -> dict[str, dict[str, Any]]:
        """{request id: the app's line about it}, which it writes when the answer is already on its way."""
        return {line["request_id"]: line for line in self.lines("app") if line["event"] == "request"}


@pytest.fixture(scope="module")
def box(
    ready_database: str, model_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("box")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    container = environment(
        ready_database, model_environment, folder, APP_PORT=port, LOG_LEVEL="debug", WORKER_MAX_ATTEMPTS="1"
    )
    processes = [Process(module, environment=container, output=folder / module) for module in ("app", "worker")]
    try:
        assert run("app.selftest", environment=container).returncode == 0
        # Postgres quotes the row that it refuses, and so the text in it.
        with connect(ready_database) as database:
            database.execute("ALTER TABLE generation_1_chunks ADD CHECK (content NOT LIKE '%독%') NOT VALID")
        yield Box(container, folder)
    finally:
        for process in processes:
            process.end()


def test_no_line_quotes_a_text_an_id_or_a_key(box: Box) -> None:
    document = {"id": f"{SECRET}-1", "title": SECRET, "text": f"{SECRET}입니다.", "metadata": {SECRET: SECRET}}
    poison = {"id": f"{SECRET}-2", "text": f"{SECRET} 독"}
    asked = [
        box.post("/search", query=SECRET),
        box.post("/search", query=SECRET, filter={SECRET: {"$bad": SECRET}}),
        box.post("/v1/embeddings", input=[SECRET]),
        box.post("/v1/embeddings", input=[SECRET], model=SECRET),
        box.post("/v1/rerank", query=SECRET, documents=[SECRET, SECRET]),
        box.post("/documents", **document),
        box.post("/documents", **poison),
        box.ask("POST", "/search", f'{{"query": "{SECRET}"'.encode()),
        box.ask("POST", "/search", f'{{"top_k": "{SECRET}"}}'.encode()),
        box.ask("GET", "/documents/%EB%B9%84%EB%B0%80%EC%8A%A4%EB%9F%AC%EC%9A%B4%EB%82%B4%EC%9A%A9-1"),
        box.ask("GET", "/%EB%B9%84%EB%B0%80%EC%8A%A4%EB%9F%AC%EC%9A%B4%EB%82%B4%EC%9A%A9"),
        box.ask("GET", "/openapi.json?q=%EB%B9%84%EB%B0%80%EC%8A%A4%EB%9F%AC%EC%9A%B4%EB%82%B4%EC%9A%A9"),
        box.ask("GET", "/health", key=SECRET),
        box.ask("POST", "/search", b'{"query": "x"}', key=SECRET),
        box.ask("GET", "/health", identity=SECRET),
    ]
    with socket.create_connection(("127.0.0.1", int(box.container["APP_PORT"]))) as client:
        client.sendall(f"NOT HTTP {SECRET}\r\n\r\n".encode())
        client.recv(4096)
    eventually(lambda: "attempt_failed" in box.text("worker") and '"indexed"' in box.text("worker"))

    eventually(lambda: {identity for _, identity, _ in asked} <= box.requests().keys())

    statuses = [status for status, _, _ in asked]
    assert statuses == [200, 400, 200, 404, 200, 202, 202, 400, 400, 200, 404, 200, 200, 401, 200]
    for name in ("app", "worker"):
        for secret in (SECRET, SECRET.encode().decode("latin-1"), "%EB%B9%84", "독", "the-key", "not asked for"):
            assert secret not in box.text(name), (name, secret)
        assert all({"time", "level", "event"} <= line.keys() for line in box.lines(name))
    # Every answer names its line.
    logged = box.requests()
    assert [logged[identity]["status"] for _, identity, _ in asked] == statuses


def test_a_well_formed_id_is_taken_over_and_returned(box: Box) -> None:
    assert box.ask("POST", "/search", b"{", identity="trace-7.a_B")[1] == "trace-7.a_B"
    eventually(lambda: "trace-7.a_B" in box.requests())
    for odd in ("two words", "x" * 65, 'quote"', "비밀"):
        assert box.ask("GET", "/livez", identity=odd)[1] != odd


def test_the_level_keeps_all_below_it_out(box: Box, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    quiet = box.container | {"APP_PORT": port, "LOG_LEVEL": "error"}
    app = Process("app", environment=quiet, output=tmp_path / "output")
    try:
        assert run("app.selftest", environment=quiet).returncode == 0
        assert app.terminate() == 0
    finally:
        app.end()
    assert (tmp_path / "output").read_text(encoding="utf-8") == ""
