"""A small HTTP server with the shape of a box's API: documents in memory, jobs that take a few looks, word search."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "the-key-of-the-stand-in"
LOOKS_UNTIL_DONE = 2
MODELS = ("embedding", "reranker")

Reply = tuple[int, Any]


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> Reply:
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


class StandinBox:
    """Use it as a context manager; `url` is its address, `searches` what it was asked."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.searches: list[dict[str, Any]] = []
        self.refuse: set[str] = set()
        self.fail: dict[str, str] = {}
        self.largest_body = 8 * 1024 * 1024
        self.stuck = False
        self.busy_answers = 0
        self.hang_ups = 0
        self.next_raw_answer: bytes | None = None
        self.next_reply: Reply | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "StandinBox":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply(self, method: str, path: str, body: Any) -> Reply:
        match method, path.strip("/").split("/"):
            case "POST", ["documents"]:
                return self._take(body)
            case "GET", ["jobs", job_id]:
                return self._look(job_id)
            case "GET", ["documents", document_id] if document_id in self.documents:
                return 200, self.documents[document_id]
            case "GET", ["health"]:
                named = {kind: {"name": f"standin-{kind}", "release": f"standin-{kind}-1"} for kind in MODELS}
                return 200, {"status": "ok", "documents": len(self.documents), "models": named}
            case "POST", ["search"]:
                return self._search(body)
        return error(404, f"there is nothing at {path}")

    def _take(self, body: bytes) -> Reply:
        if len(body) > self.largest_body:
            return error(413, "the body is too large", code="body_too_large")
        documents: list[dict[str, Any]] = []
        refused: list[dict[str, Any]] = []
        for number, line in enumerate(body.split(b"\n"), 1):
            document = json.loads(line)
            if document["text"] not in self.refuse:
                documents.append(document)
            else:
                refused.append({"line": number, "reason": f"{number}.text is empty."})
        if not documents:
            first = (
                refused[0]["reason"] if len(refused) == 1 else f"No line can be kept, the first: {refused[0]['reason']}"
            )
            return error(400, first, code="invalid_lines")
        unchanged = sum(self.documents.get(document["id"]) == document for document in documents)
        self.documents |= {document["id"]: document for document in documents}
        job_id = f"job-{len(self.jobs) + 1}"
        ids = [document["id"] for document in documents]
        self.jobs[job_id] = {"documents": ids, "unchanged": unchanged, "looks": 0}
        return 202, {"job": job_id, "documents": ids, "refused": refused}

    def _look(self, job_id: str) -> Reply:
        job = self.jobs[job_id]
        job["looks"] += 1
        done = job["looks"] >= LOOKS_UNTIL_DONE and not self.stuck
        failures = [{"document": name, "reason": self.fail[name]} for name in job["documents"] if name in self.fail]
        return 200, {
            "job": job_id,
            "status": ("failed" if failures else "done") if done else "running",
            "documents": len(job["documents"]),
            "done": len(job["documents"]) - len(failures) if done else 0,
            "unchanged": job["unchanged"] if done else 0,
            "failures": failures if done else [],
        }

    def _search(self, asked: dict[str, Any]) -> Reply:
        self.searches.append(asked)
        wanted = words(asked["query"])
        scored = [
            (len(wanted & words(f"{document['title']} {document['text']}")), document)
            for document in self.documents.values()
        ]
        best = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])[: asked["top_k"]]
        results = [
            {"document_id": document["id"], "title": document["title"], "text": document["text"], "score": count / 10}
            for count, document in best
        ]
        reranked = asked.get("rerank", True) not in (False, "off")
        lead = (best[0][0] - best[1][0]) / 10 if len(best) > 1 else None
        rerank = {
            "ran": reranked, "why": "" if reranked else "not asked for", "candidates": len(best), "lead": lead,
        }  # fmt: skip
        return 200, {"results": results, "timings_ms": {"total": 12.5}, "rerank": rerank, "generation": 1, "models": {}}

    def _handler(standin) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET")

            def do_POST(self) -> None:
                self._answer("POST")

            def _answer(self, method: str) -> None:
                length = int(self.headers.get("Content-Length", 0))
                raw = self.rfile.read(length)
                body = raw if "ndjson" in self.headers.get("Content-Type", "") else json.loads(raw) if length else None
                if standin.hang_ups:
                    standin.hang_ups -= 1
                elif standin.busy_answers:
                    standin.busy_answers -= 1
                    self._send(*error(429, "too many requests"), retry_after="0")
                elif standin.next_raw_answer is not None:
                    self._send_raw(200, standin.next_raw_answer)
                elif standin.next_reply is not None:
                    self._send(*standin.next_reply)
                elif self.headers.get("Authorization") != f"Bearer {KEY}":
                    self._send(*error(401, "the API key is missing or wrong"))
                else:
                    self._send(*standin.reply(method, self.path, body))

            def _send(self, status: int, content: Any, retry_after: str | None = None) -> None:
                self._send_raw(status, json.dumps(content).encode(), retry_after)

            def _send_raw(self, status: int, content: bytes, retry_after: str | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if retry_after is not None:
                    self.send_header("Retry-After", retry_after)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Keeps the tests' output quiet."""

        return Handler
