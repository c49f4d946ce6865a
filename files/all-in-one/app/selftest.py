"""`python -m app.selftest`: one real embedding, rerank and search through HTTP. Prints one JSON line.

With --url it asks a running app; with --candidate it starts the app of this image on a free loopback port first.
SELFTEST_SECONDS (60) is how long it waits for the app to be ready, and for a running one not to be degraded: what was
mended is noticed within seconds. A candidate must not even begin degraded.
"""

import argparse
import json
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from app import log, services, settings
from app.main import create_app
from app.readiness import ANSWER, QUESTION
from store.connection import conninfo
from store.errors import StoreError

TIMEOUT = 30  # seconds of one request


class SelftestError(RuntimeError):
    """What the app did instead of the right thing, in one sentence."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app.selftest", description=__doc__)
    parser.add_argument("--url", default=f"http://127.0.0.1:{os.environ.get('APP_PORT') or '8000'}")
    parser.add_argument("--candidate", action="store_true", help="start this image's app and ask that one")
    arguments = parser.parse_args()
    log.stream = sys.stderr  # standard output is for the report
    log.take_over_logging()
    try:
        configured = settings.from_environment()
        if arguments.candidate:
            with _candidate(configured) as (url, key):
                report = check(url, lambda: key, mends=False)
        else:
            report = check(arguments.url.rstrip("/"), lambda: _handed_over(configured), mends=True)
    except (SelftestError, settings.SettingsError, StoreError) as error:
        print(f"selftest: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report))
    return 0


def _handed_over(configured: settings.Settings) -> str:
    """The running app's own key, empty where none is needed."""
    if not configured.keys:
        return ""
    try:
        return configured.selftest_key_file.read_text(encoding="ascii")
    except OSError as error:
        raise SelftestError(
            f"{configured.selftest_key_file}, which the running app writes, cannot be read ({error.strerror}); "
            "run this in its container."
        ) from None


def check(url: str, key: Callable[[], str], *, mends: bool) -> dict[str, Any]:
    """Wait until ready, then embed, rerank and search. SelftestError for the first thing that is not right.

    `key` is asked for once the app is ready; `mends` allows one that is degraded the time to stop being so.
    """
    headers = {"content-type": "application/json"}
    started = time.monotonic()
    seconds = float(os.environ.get("SELFTEST_SECONDS") or 60)
    _wait(lambda: _ask(url, "/readyz", {}, None), f"not ready after {seconds:.0f} s: ", seconds)
    if known := key():
        headers["authorization"] = f"Bearer {known}"
    _wait(lambda: _check_health(url, headers), "", seconds if mends else 0)
    report: dict[str, Any] = {"ok": True, "ready_seconds": round(time.monotonic() - started, 2)}
    for step in (_embed, _rerank, _search):
        began = time.monotonic()
        report |= step(url, headers)
        report[f"{step.__name__[1:]}_ms"] = round((time.monotonic() - began) * 1000, 1)
    return report


@contextmanager
def _candidate(configured: settings.Settings) -> Iterator[tuple[str, str]]:
    made = services.make(configured, conninfo(), switches=False)
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


def _wait(step: Callable[[], object], complaint: str, seconds: float) -> None:
    """Try the step until it raises no SelftestError, or raise its last one with the complaint in front."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            step()
            return
        except SelftestError as error:
            if time.monotonic() > give_up:
                raise SelftestError(f"{complaint}{error}") from None
            time.sleep(0.25)


def _check_health(url: str, headers: dict[str, str]) -> None:
    health = _ask(url, "/health", headers, None)
    # That another embedding model does not come to serve is no fault of this app: it answers with the one before.
    coming = (health.get("generations") or {}).get("next") or {}
    reasons = [reason for reason in health.get("degraded", []) if reason != coming.get("why")]
    if health["status"] == "unavailable" or reasons:
        raise SelftestError(f"the app is {health['status']}: {' '.join(reasons)}")


def _embed(url: str, headers: dict[str, str]) -> dict[str, Any]:
    answer = _ask(url, "/v1/embeddings", headers, {"input": [QUESTION], "input_type": "query"})
    vector = answer["data"][0]["embedding"]
    if not vector or not any(vector):
        raise SelftestError("/v1/embeddings gave an empty or zero vector.")
    return {"dimension": len(vector), "embedding": answer["model"]}


def _rerank(url: str, headers: dict[str, str]) -> dict[str, Any]:
    answer = _ask(url, "/v1/rerank", headers, {"query": QUESTION, "documents": ["안녕하세요.", ANSWER]})
    scores = [entry["relevance_score"] for entry in answer["results"]]
    if len(scores) != 2 or not all(0.0 <= score <= 1.0 for score in scores):
        raise SelftestError(f"/v1/rerank gave the scores {scores} instead of two from 0 to 1.")
    return {"reranker": answer["model"]}


def _search(url: str, headers: dict[str, str]) -> dict[str, Any]:
    answer = _ask(url, "/search", headers, {"query": QUESTION, "top_k": 3})
    return {"search_results": len(answer["results"]), "generation": answer["generation"]}


def _ask(url: str, path: str, headers: dict[str, str], body: dict[str, Any] | None) -> Any:
    data = json.dumps(body).encode("utf-8") if body is not None else None
    request = urllib.request.Request(url + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SelftestError(f"{path} answered {error.code}: {error.read().decode('utf-8', 'replace')[:500]}") from None
    except (OSError, ValueError) as error:
        raise SelftestError(f"{path} at {url} gave no answer: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
