"""`python -m app.selftest`: one real embedding, rerank and search through HTTP. Prints one JSON line.

It asks the running app. SELFTEST_SECONDS (60) is how long it waits for it to be ready, and not to be degraded any more:
what was mended is noticed within seconds. What it imports is kept small: every play runs it.
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from app import log, settings
from app.probe import ANSWER, QUESTION

TIMEOUT = 30  # seconds of one request


class SelftestError(RuntimeError):
    """What the app did instead of the right thing, in one sentence."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m app.selftest", description=__doc__)
    parser.add_argument("--url", default=f"http://127.0.0.1:{os.environ.get('APP_PORT') or '8000'}")
    url = parser.parse_args().url.rstrip("/")
    return report(lambda: check(url, lambda: _handed_over(settings.from_environment()), mends=True))


def report(test: Callable[[], dict[str, Any]]) -> int:
    """Print what the test found, or the reason why it failed in one sentence; returns the exit code."""
    log.stream = sys.stderr  # standard output is for the report
    log.take_over_logging()
    try:
        found = test()
    except (SelftestError, settings.SettingsError) as error:
        print(f"selftest: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found))
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
    found: dict[str, Any] = {"ok": True, "ready_seconds": round(time.monotonic() - started, 2)}
    for step in (_embed, _rerank, _search):
        began = time.monotonic()
        found |= step(url, headers)
        found[f"{step.__name__[1:]}_ms"] = round((time.monotonic() - began) * 1000, 1)
    return found


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
