"""`python -m app` as a process over a models folder, asked through its port."""

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import damage
import payload_process
from payload_process import Process

PATIENCE = 60.0  # seconds


def environment(database: str, models: Path, folder: Path) -> dict[str, str]:
    """A container's environment with a free port; `folder` holds its secrets."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    return payload_process.environment(database, damage.environment(models), folder, APP_PORT=port)


class App:
    """A running app."""

    def __init__(self, environment: dict[str, str], output: Path) -> None:
        self.environment = environment
        self._output = output
        self._process = Process("app", environment=environment, output=output)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.environment['APP_PORT']}{path}",
            data=json.dumps(body).encode() if body is not None else None,
            headers={"authorization": "Bearer the-key", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def health(self, *wanted: str) -> dict[str, Any]:
        """/health, once its status is one of those wanted."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                health: dict[str, Any] = self.ask("/health")[1]
            except OSError:
                health = {"status": "not there yet"}
            if health["status"] in wanted:
                return health
            assert time.monotonic() < give_up, health
            time.sleep(0.1)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._output.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["event"] == name]

    def end(self) -> None:
        self._process.end()


@contextmanager
def running(environment: dict[str, str], folder: Path) -> Iterator[App]:
    """An app that is being started; it is gone afterwards."""
    app = App(environment, folder / "output")
    try:
        yield app
    finally:
        app.end()
