"""A model hub on loopback, in the real one's URL layout: pinned revisions, hashes, ranges, and ways to fail."""

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPOSITORY = "acme/tiny"
REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """`files` is the repository at REVISION, and these make it misbehave.

    `break_after` cuts each body after so many bytes; `stall_after` sends as many and then nothing for `stall` seconds,
    once. `answers` are statuses with headers that requests for files get first, in turn; `always` is one they all get;
    the listing has its own.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.claimed: dict[str, str] = {}
        self.break_after: int | None = None
        self.gated = False
        self.stall_after: int | None = None
        self.stall = 15.0
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.always: tuple[int, dict[str, str]] | None = None
        self.listing_answers: list[int] = []
        self.listing_always: tuple[int, dict[str, str]] | None = None
        self.requests: list[tuple[str, str, str | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def sha256(self, name: str) -> str:
        return self.claimed.get(name) or hashlib.sha256(self.files[name]).hexdigest()

    def listing(self) -> dict[str, Any]:
        siblings = []
        for name, content in self.files.items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content)}
            if name.endswith((".safetensors", ".bin")):
                entry["lfs"] = {"sha256": self.sha256(name), "size": len(content), "pointerSize": 134}
                entry["blobId"] = "0" * 40
            else:
                blob = f"blob {len(content)}\0".encode() + content
                entry["blobId"] = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
            siblings.append(entry)
        return {"id": REPOSITORY, "sha": REVISION, "siblings": siblings, "private": False, "gated": self.gated}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                hub.requests.append((self.command, path, self.headers.get("Range")))
                if path == f"/api/models/{REPOSITORY}/revision/{REVISION}":
                    status = hub.listing_answers.pop(0) if hub.listing_answers else 200
                    status, headers = hub.listing_always or (status, {})
                    self._send(status, json.dumps(hub.listing()).encode(), headers, body)
                    return
                prefix = f"/{REPOSITORY}/resolve/{REVISION}/"
                name = path.removeprefix(prefix)
                if not path.startswith(prefix) or name not in hub.files:
                    code = "RevisionNotFound" if REPOSITORY in path else "RepoNotFound"
                    self._send(404, b"{}", {"X-Error-Code": code}, body)
                    return
                if hub.gated:
                    self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
                    return
                answer = hub.always or (hub.answers.pop(0) if hub.answers else None)
                if answer:
                    self._send(answer[0], b"{}", answer[1], body)
                    return
                self._send_file(name, body)

            def _send_file(self, name: str, body: bool) -> None:
                content, status = hub.files[name], 200
                headers = {"ETag": f'"{hub.sha256(name)}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
                wanted = self.headers.get("Range")
                if wanted:
                    start = int(wanted.removeprefix("bytes=").partition("-")[0])
                    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                    content, status = content[start:], 206
                self._send(status, content, headers, body)

            def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if not body:
                    return
                stall = hub.stall_after
                if stall is not None and len(content) > stall:
                    hub.stall_after = None
                    self.wfile.write(content[:stall])
                    self.wfile.flush()
                    time.sleep(hub.stall)
                    self.connection.close()
                    self.close_connection = True
                    return
                cut = hub.break_after
                if cut is not None and len(content) > cut:
                    self.wfile.write(content[:cut])
                    self.wfile.flush()
                    self.connection.close()
                    self.close_connection = True
                    return
                self.wfile.write(content)

        return Handler
