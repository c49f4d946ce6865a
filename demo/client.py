"""Talks to a box over HTTP, with the standard library alone, and says in one sentence what went wrong."""

import argparse
import http.client
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

DEFAULT_URL = "http://127.0.0.1:8000"
PATIENCE_S = 60.0
BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
BUSY_ATTEMPTS = 4
LONGEST_WAIT_S = 30.0


class DemoError(Exception):
    """The program cannot go on; the message names the thing, what was found and the next step."""


class NotFoundError(DemoError):
    """The box answered 404."""


@dataclass(frozen=True)
class Result:
    """One found document, with its best passage of text and the score that ranked it."""

    document_id: str
    title: str
    text: str
    score: float


@dataclass(frozen=True)
class Answer:
    """A search's results, best first. `total_ms` is the box's own time; `why` says why the reranker ran or did not."""

    results: list[Result]
    total_ms: float
    reranked: bool
    why: str
    candidates: int


@dataclass(frozen=True)
class Job:
    """How far an ingestion job is. `documents` counts all it was given, `unchanged` those the box already held."""

    id: str
    status: str
    documents: int
    done: int
    unchanged: int
    error: str | None

    @property
    def finished(self) -> bool:
        return self.status in ("done", "failed")


class Box:
    """One box. Every method raises DemoError with a sentence fit for a terminal."""

    def __init__(self, url: str = DEFAULT_URL, key: str | None = None, *, patience_s: float = PATIENCE_S) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise DemoError(f"--url {url!r} is not an address: write it as http://HOST:PORT, for example {DEFAULT_URL}")
        self.url = url.rstrip("/")
        self._key = key
        self._patience_s = patience_s
        # A box is on loopback or in the same network: a proxy set for the internet cannot reach it.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def submit(self, documents: list[dict[str, Any]]) -> str:
        """Hands over documents (each with id, title, text, metadata, source) and returns the job's ID."""
        answer = self._call("POST", "/documents", documents)
        return str(self._field(answer, "job", "POST /documents"))

    def job(self, job_id: str) -> Job:
        path = f"/jobs/{urllib.parse.quote(job_id, safe='')}"
        answer = self._call("GET", path)
        fields = ("status", "documents", "done", "unchanged")
        status, documents, done, unchanged = (self._field(answer, field, f"GET {path}") for field in fields)
        return Job(job_id, status, int(documents), int(done), int(unchanged), answer.get("error"))

    def has_document(self, document_id: str) -> bool:
        try:
            self._call("GET", f"/documents/{urllib.parse.quote(document_id, safe='')}")
        except NotFoundError:
            return False
        return True

    def search(self, query: str, *, top_k: int = 10, rerank: bool = True, fusion: str = "hybrid") -> Answer:
        """Searches; `fusion` is "hybrid" (vectors and words) or "vectors"."""
        wanted = {"query": query, "top_k": top_k, "rerank": rerank, "fusion": fusion}
        answer = self._call("POST", "/search", wanted)
        results, timings, reranking = (
            self._field(answer, field, "POST /search") for field in ("results", "timings_ms", "rerank")
        )
        return Answer(
            results=[self._result(result) for result in results],
            total_ms=float(self._field(timings, "total", "POST /search, timings_ms")),
            reranked=bool(self._field(reranking, "ran", "POST /search, rerank")),
            why=str(reranking.get("why") or ""),
            candidates=int(reranking.get("candidates") or 0),
        )

    def _result(self, result: Any) -> Result:
        fields = ("document_id", "title", "text", "score")
        document_id, title, text, score = (self._field(result, field, "POST /search, results") for field in fields)
        return Result(document_id, title or "", text, float(score))

    def _field(self, answer: Any, field: str, where: str) -> Any:
        if not isinstance(answer, dict) or field not in answer:
            found = ", ".join(answer) if isinstance(answer, dict) else type(answer).__name__
            raise DemoError(
                f"{self.url} ({where}) answered without {field!r} (found: {found}): "
                "the box and this checkout are of different versions; deploy this one with playbooks/site.yml"
            )
        return answer[field]

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """Sends one request and returns the JSON of its answer; a busy box is asked again when it says so."""
        for attempt in range(1, BUSY_ATTEMPTS + 1):
            try:
                return self._call_once(method, path, body)
            except urllib.error.HTTPError as error:
                with error:
                    wait_s = _asked_to_wait(error)
                    if wait_s is None or attempt == BUSY_ATTEMPTS:
                        raise self._refusal(error, method, path) from None
                time.sleep(wait_s)
            # Not URLError alone: urllib lets timeouts, resets and half answers through as they are.
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from None
        raise AssertionError("the last attempt returns or raises")

    def _call_once(self, method: str, path: str, body: Any) -> Any:
        headers = {"Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        content = None
        if body is not None:
            content = json.dumps(body, ensure_ascii=False).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, data=content, headers=headers, method=method)
        with self._opener.open(request, timeout=self._patience_s) as response:
            raw = response.read()
        try:
            return json.loads(raw)
        except ValueError:
            raise DemoError(
                f"{self.url}{path} answered with something that is not JSON ({raw[:60]!r}): "
                "is that address a box? Give another with --url"
            ) from None

    def _unreachable(self, error: Exception) -> DemoError:
        reason = getattr(error, "reason", None) or error
        return DemoError(
            f"no answer from {self.url} ({reason}): is the box up, and is this its address? "
            f"Try `curl {self.url}/livez`, or give another with --url"
        )

    def _refusal(self, error: urllib.error.HTTPError, method: str, path: str) -> DemoError:
        message = _message(error)
        if error.code == HTTPStatus.UNAUTHORIZED:
            sent = "refused the key it was sent" if self._key is not None else "wants an API key"
            return DemoError(
                f"{self.url} {sent} (401: {message}): give the file that holds it with --key-file; "
                "the playbook's recap prints its path"
            )
        kind = NotFoundError if error.code == HTTPStatus.NOT_FOUND else DemoError
        return kind(f"{self.url} answered {method} {path} with {error.code}: {message}")


def _asked_to_wait(error: urllib.error.HTTPError) -> float | None:
    """Seconds the box asked us to wait, or None when asking again is no use."""
    seconds = error.headers.get("Retry-After", "")
    if error.code not in BUSY or not seconds.isdigit():
        return None
    return min(float(seconds), LONGEST_WAIT_S)


def _message(error: urllib.error.HTTPError) -> str:
    """The sentence inside the API's error shape, or the plain reason where something else answered."""
    try:
        told = json.loads(error.read())["error"]
        where = f" ({told['param']})" if told.get("param") else ""
        return f"{told['message']}{where}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return str(error.reason)


def read_key(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DemoError(f"--key-file {path} cannot be read ({reason}): copy the key from the box, mode 0600") from None
    if not key:
        raise DemoError(f"--key-file {path} is empty: it has to hold the API key of the box")
    return key


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file, empty lines left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DemoError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DemoError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DemoError(f"{path}, line {number}: expected an object, found {type(row).__name__}")
        rows.append(row)
    if not rows:
        raise DemoError(f"{path} holds no line: expected one JSON object a line")
    return rows


def add_box_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default=DEFAULT_URL, help="address of the box (default: %(default)s)")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="file holding the API key, if the box wants one")


def box_of(arguments: argparse.Namespace) -> Box:
    return Box(arguments.url, read_key(arguments.key_file) if arguments.key_file else None)


def run(main: Callable[[], int]) -> None:
    """Runs a program and exits: 0 or 1 as it says, 2 with one sentence when the box did not do as asked."""
    try:
        sys.exit(main())
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
