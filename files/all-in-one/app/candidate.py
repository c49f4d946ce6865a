"""`python -m app.candidate`: the self-test of this image's app, before it takes the place of the one that runs.

The app is started on a free loopback port of its own, and ended again. It must not even begin degraded.
"""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from app import selftest, services, settings
from app.main import create_app
from store.connection import conninfo
from store.errors import StoreError


def main() -> int:
    return selftest.report(_test)


def _test() -> dict[str, Any]:
    with _running() as (url, key):
        return selftest.check(url, lambda: key, mends=False)


@contextmanager
def _running() -> Iterator[tuple[str, str]]:
    try:
        made = services.make(settings.from_environment(), conninfo(), switches=False)
    except StoreError as error:
        raise selftest.SelftestError(*error.args) from None
    app = create_app(made)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="candidate", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", made.keys.own
        finally:
            server.should_exit = True
            thread.join(timeout=10)


if __name__ == "__main__":
    sys.exit(main())
