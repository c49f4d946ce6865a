"""A box on a port: the app and a worker of this process behind a real HTTP server, for clients as they are."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from box import PATIENCE, running_worker

from app.main import create_app
from app.services import Services, make
from app.settings import Settings


@dataclass(frozen=True)
class Served:
    url: str
    services: Services


@contextmanager
def served(database: str, settings: Settings, folder: Path | None) -> Iterator[Served]:
    """Returns once the models are loaded. `folder` is the worker's; without one there is none."""
    services = make(settings, database)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(services), log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, args=([listener],), name="server")
    thread.start()
    try:
        give_up = time.monotonic() + PATIENCE
        while services.models.loaded is None:
            assert time.monotonic() < give_up, services.models.why
            time.sleep(0.05)
        with running_worker(database, folder) if folder else nullcontext():
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", services)
    finally:
        server.should_exit = True
        thread.join(timeout=PATIENCE)
