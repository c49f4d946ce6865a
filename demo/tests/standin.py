"""A small HTTP server with the shape of a box's API: documents in memory, jobs that take a few looks, word search."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "the-key-of-the-stand-in"
LOOKS_UNTIL_DONE = 2

Reply = tuple[int, Any]


def error(status: int, message: str, param: str | None = None) -> Reply:
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


class StandinBox:
    """Use it as a context manager; `url` is its address, `searches` what it was asked."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.searches: list[dict[str, Any]] = []
        self.fail_jobs_with: str | None = None
        self.stuck = False
        self.busy_answers = 0
        self.next_raw_answer: bytes | None = None
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
                return self._take(body if isinstance(body, list) else [body])
            case "GET", ["jobs", job_id]:
                return self._look(job_id)
            case "GET", ["documents", document_id] if document_id in self.documents:
                return 200, self.documents[document_id]
            case "POST", ["search"]:
                return self._search(body)
        return error(404, f"there is nothing at {path}")

    def _take(self, documents: list[dict[str, Any]]) -> Reply:
        for document in documents:
            if not document["text"]:
                return error(422, "text is empty: expected at least one character", "text")
        unchanged = sum(self.documents.get(document["id"]) == document for document in documents)
        self.documents |= {document["id"]: document for document in documents}
        job_id = f"job-{len(self.jobs) + 1}"
        self.jobs[job_id] = {"documents": len(documents), "unchanged": unchanged, "looks": 0}
        return 202, {"job": job_id}

    def _look(self, job_id: str) -> Reply:
        job = self.jobs[job_id]
        job["looks"] += 1
        done = job["looks"] >= LOOKS_UNTIL_DONE and not self.stuck
        answer = {
            "job": job_id,
            "status": "done" if done else "running",
            "documents": job["documents"],
            "done": job["documents"] if done else job["documents"] // 2,
            "unchanged": job["unchanged"] if done else 0,
            "error": None,
        }
        if self.fail_jobs_with:
            answer |= {"status": "failed", "error": self.fail_jobs_with}
        return 200, answer

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
        rerank = {"ran": asked["rerank"], "why": "" if asked["rerank"] else "not asked for", "candidates": len(best)}
        return 200, {"results": results, "timings_ms": {"total": 12.5}, "rerank": rerank, "generation": 1, "models": {}}

    def _handler(standin) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET")

            def do_POST(self) -> None:
                self._answer("POST")

            def _answer(self, method: str) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                if standin.busy_answers:
                    standin.busy_answers -= 1
                    self._send(*error(429, "too many requests"), retry_after="0")
                elif standin.next_raw_answer is not None:
                    self._send_raw(200, standin.next_raw_answer)
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
