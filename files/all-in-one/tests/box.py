"""The app and a worker in this process, as tests use them: one box, reached through its HTTP interface."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from starlette.testclient import TestClient

from app.keys import key_of
from app.main import create_app
from app.services import Services, make
from app.settings import Settings
from worker.loop import Worker
from worker.settings import Settings as WorkerSettings

KEYS = ("the-key", "the-next-key")
# What the service knows of them.
HASHES = tuple(key_of(f"operator-{number}", ["admin"], key) for number, key in enumerate(KEYS, 1))
HEADERS = {"authorization": f"Bearer {KEYS[0]}"}
PATIENCE = 60.0  # seconds


@dataclass
class Box:
    """`client` sends the key; `services` are what the app works with."""

    client: TestClient
    services: Services

    def post(self, path: str, **body: Any) -> httpx2.Response:
        return self.client.post(path, json=body)

    def ingest(self, *documents: dict[str, Any]) -> dict[str, Any]:
        """The finished job."""
        answer = self.client.post("/documents", json=list(documents))
        assert answer.status_code == 202, answer.text
        return self.finished(answer.json()["job"])

    def finished(self, job: str) -> dict[str, Any]:
        give_up = time.monotonic() + PATIENCE
        while True:
            status: dict[str, Any] = self.client.get(f"/jobs/{job}").json()
            if status["status"] in ("done", "failed"):
                return status
            assert time.monotonic() < give_up, status
            time.sleep(0.05)

    def found(self, query: str, **options: Any) -> list[str]:
        """Documents, best first."""
        answer = self.post("/search", query=query, **options)
        assert answer.status_code == 200, answer.text
        return [result["document_id"] for result in answer.json()["results"]]


@contextmanager
def running_app(database: str, settings: Settings) -> Iterator[Box]:
    """Returns once the models are loaded."""
    services = make(settings, database)
    with TestClient(create_app(services), headers=HEADERS, raise_server_exceptions=False) as client:
        give_up = time.monotonic() + PATIENCE
        while services.models.loaded is None:
            assert time.monotonic() < give_up, services.models.why
            time.sleep(0.05)
        yield Box(client, services)


@contextmanager
def running_worker(database: str, folder: Path) -> Iterator[Worker]:
    """A worker in a thread of this process."""
    worker = Worker(database, WorkerSettings(poll=0.02, retry=0, heartbeat=folder / "heartbeat"))
    thread = threading.Thread(target=worker.run, name="worker")
    thread.start()
    try:
        yield worker
    finally:
        worker.stop.set()
        thread.join(timeout=PATIENCE)
