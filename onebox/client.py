"""Talks to a box over HTTP, with the standard library alone, and says in one sentence what went wrong."""

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

DEFAULT_URL = "http://127.0.0.1:8080"
PATIENCE_S = 60.0
PERSEVERE_S = 30.0
BUSY = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,  # these two come from a reverse proxy whose box restarts
    HTTPStatus.GATEWAY_TIMEOUT,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
LONGEST_WAIT_S = 30.0

Span = tuple[int, int]


class OneboxError(Exception):
    """The program cannot go on; the message names the thing, what was found and the next step."""


class RefusedError(OneboxError):
    """The box answered with an error. `reason` is its own sentence, `code` its word for programs."""

    def __init__(self, message: str, *, status: int, reason: str, code: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.code = code


@dataclass(frozen=True)
class Result:
    """One found document, with its best passage of text and the score that ranked it.

    Highlights are half-open ranges of characters in `text` and `title`.
    """

    document_id: str
    title: str
    text: str
    score: float
    highlights: tuple[Span, ...] = ()
    title_highlights: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A search's results, best first. `total_ms` is the box's own time; `why` says why the reranker ran or did not."""

    results: list[Result]
    total_ms: float
    reranked: bool
    why: str
    candidates: int


@dataclass(frozen=True)
class Submission:
    """What the box made of the lines it was sent: a job, and the lines (from 1) it refused, each with the reason."""

    job: str
    refused: dict[int, str]


@dataclass(frozen=True)
class Job:
    """How far an ingestion job is.

    `documents` counts all it was given, `unchanged` those the box already held; `failures` are the documents that were
    given up, each with the reason.
    """

    id: str
    status: str
    documents: int
    done: int
    unchanged: int
    failures: dict[str, str]

    @property
    def finished(self) -> bool:
        return self.status in ("done", "failed")


class Box:
    """One box. Every method raises OneboxError with a sentence fit for a terminal.

    A box that is busy, or that goes away after it was reached, is asked again until `persevere_s` have passed.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
        persevere_s: float = PERSEVERE_S,
    ) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise OneboxError(
                f"--url {url!r} is not an address: write it as http://HOST:PORT, for example {DEFAULT_URL}"
            )
        self.url = url.rstrip("/")
        self._key = key
        self._patience_s = patience_s
        self._persevere_s = persevere_s
        self._reached = False
        # A box is on loopback or in the same network: a proxy set for the internet cannot reach it. A redirect would
        # take the key to another address.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)

    def submit(self, lines: Sequence[bytes]) -> Submission:
        """Hands over documents, each a line of JSON (id, title, text, metadata, source)."""
        answer = self._call("POST", "/documents", b"\n".join(lines), media_type="application/x-ndjson")
        job = str(self._field(answer, "job", "POST /documents"))
        return Submission(job, {int(entry["line"]): str(entry["reason"]) for entry in answer.get("refused", [])})

    def job(self, job_id: str) -> Job:
        path = f"/jobs/{urllib.parse.quote(job_id, safe='')}"
        answer = self._call("GET", path)
        fields = ("status", "documents", "done", "unchanged")
        status, documents, done, unchanged = (self._field(answer, field, f"GET {path}") for field in fields)
        failures = {str(entry["document"]): str(entry["reason"]) for entry in answer.get("failures", [])}
        return Job(job_id, status, int(documents), int(done), int(unchanged), failures)

    def has_document(self, document_id: str) -> bool:
        try:
            self._call("GET", f"/documents/{urllib.parse.quote(document_id, safe='')}")
        except RefusedError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    def health(self) -> dict[str, Any]:
        """GET /health: as much as the key may see."""
        answer: dict[str, Any] = self._call("GET", "/health")
        self._field(answer, "status", "GET /health")
        return answer

    def parked(self) -> list[dict[str, Any]]:
        """Every document that was given up: {"document", "reason", "attempts", …}, oldest first."""
        found: list[dict[str, Any]] = []
        cursor: int | None = 0
        while cursor is not None:
            page = self._call("GET", f"/admin/parked?cursor={cursor}")
            found += self._field(page, "parked", "GET /admin/parked")
            cursor = page.get("next")
        return found

    def requeue(self, documents: Sequence[str] | None = None) -> int:
        """Tries the named documents again that were given up, or every one; how many."""
        wanted = {"documents": list(documents)} if documents is not None else {}
        answer = self._call("POST", "/admin/requeue", _json(wanted))
        return int(self._field(answer, "requeued", "POST /admin/requeue"))

    def ask(self, query: str, **options: Any) -> dict[str, Any]:
        """POST /search with its options (top_k, rerank, fusion, filter), and its answer as it is."""
        answer: dict[str, Any] = self._call("POST", "/search", _json({"query": query, **options}))
        return answer

    def search(self, query: str, *, top_k: int = 10, rerank: bool | str = True, fusion: str = "hybrid") -> Answer:
        """Searches; `fusion` is "hybrid" (vectors and words) or "vectors"."""
        return self.read_answer(self.ask(query, top_k=top_k, rerank=rerank, fusion=fusion))

    def read_answer(self, answer: dict[str, Any]) -> Answer:
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
        spans = (
            tuple((int(start), int(end)) for start, end in result.get(name, ()))
            for name in ("highlights", "title_highlights")
        )
        return Result(document_id, title or "", text, float(score), *spans)

    def _field(self, answer: Any, field: str, where: str) -> Any:
        if not isinstance(answer, dict) or field not in answer:
            found = ", ".join(answer) if isinstance(answer, dict) else type(answer).__name__
            raise OneboxError(
                f"{self.url} ({where}) answered without {field!r} (found: {found}): "
                "the box and this client are of different versions; deploy this one with playbooks/site.yml"
            )
        return answer[field]

    def _call(self, method: str, path: str, body: bytes | None = None, media_type: str = "application/json") -> Any:
        """Sends one request and returns the JSON of its answer. What it sends may arrive twice and counts once."""
        give_up = time.monotonic() + self._persevere_s
        wait_s = 0.25
        while True:
            asked_s = 0.0
            try:
                return self._call_once(method, path, body, media_type)
            except urllib.error.HTTPError as error:
                with error:
                    failure: OneboxError = self._refusal(error, method, path)
                    if error.code not in BUSY:
                        raise failure from None
                    asked_s = _asked_to_wait(error)
            # Not URLError alone: urllib lets timeouts, resets and half answers through as they are.
            except (OSError, http.client.HTTPException) as error:
                failure = self._unreachable(error)
                if not self._reached:
                    raise failure from None
            wait_s = min(max(asked_s, wait_s), LONGEST_WAIT_S)
            if time.monotonic() + wait_s > give_up:
                raise failure
            time.sleep(wait_s)
            wait_s *= 2

    def _call_once(self, method: str, path: str, body: bytes | None, media_type: str) -> Any:
        headers = {"Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        if body is not None:
            headers["Content-Type"] = media_type
        request = urllib.request.Request(self.url + path, data=body, headers=headers, method=method)
        with self._opener.open(request, timeout=self._patience_s) as response:
            raw = response.read()
        self._reached = True
        try:
            return json.loads(raw)
        except ValueError:
            raise OneboxError(
                f"{self.url}{path} answered with something that is not JSON ({raw[:60]!r}): "
                "is that address a box? Give another with --url"
            ) from None

    def _unreachable(self, error: Exception) -> OneboxError:
        reason = getattr(error, "reason", None) or error
        return OneboxError(
            f"no answer from {self.url} ({reason}): is the box up, and is this its address? "
            f"Try `curl {self.url}/livez`, or give another with --url"
        )

    def _refusal(self, error: urllib.error.HTTPError, method: str, path: str) -> RefusedError:
        reason, where, code = _told(error)
        if error.code == HTTPStatus.UNAUTHORIZED:
            sent = "refused the key it was sent" if self._key is not None else "wants an API key"
            message = (
                f"{self.url} {sent} (401: {reason}): give the file that holds it with --key-file or ONEBOX_KEY_FILE; "
                "the playbook's recap prints its path"
            )
        else:
            message = f"{self.url} answered {method} {path.partition('?')[0]} with {error.code}: {reason}{where}"
        return RefusedError(message, status=error.code, reason=reason, code=code)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as the answer that it is."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


def _asked_to_wait(error: urllib.error.HTTPError) -> float:
    """Seconds the box asked us to wait."""
    seconds = error.headers.get("Retry-After", "")
    return float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0


def _told(error: urllib.error.HTTPError) -> tuple[str, str, str | None]:
    """(sentence, field, code) of the API's error shape, or the plain reason where something else answered."""
    try:
        told = json.loads(error.read())["error"]
        return told["message"], f" ({told['param']})" if told.get("param") else "", told.get("code")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return str(error.reason), "", None
