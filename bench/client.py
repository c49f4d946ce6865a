"""Talks to the box and lets nothing pass unseen: a refusal is counted, waited out and asked again."""

import threading
import time
from typing import Any

import requests

PATIENCE = 900.0  # seconds
BUSY = (429, 503)
ATTEMPTS = 60


class Client:
    """One box. Each thread keeps a connection of its own open, as a client under load does."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key
        self._threads = threading.local()
        self._guard = threading.Lock()
        self._asked_again = 0

    def embed(self, texts: list[str], role: str) -> dict[str, Any]:
        wanted = {"input": texts, "input_type": role, "encoding_format": "base64"}
        answer: dict[str, Any] = self.call("POST", "/v1/embeddings", wanted)
        return answer

    def search(self, query: str, *, rerank: bool) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("POST", "/search", {"query": query, "rerank": "always" if rerank else "off"})
        return answer

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer. A busy box is asked again when it says so; HTTPError for any other refusal."""
        for _ in range(ATTEMPTS):
            answer = self._session().request(method, self._url + path, json=body, timeout=PATIENCE)
            if answer.status_code not in BUSY:
                break
            with self._guard:
                self._asked_again += 1
            time.sleep(float(answer.headers.get("Retry-After", 1)))
        answer.raise_for_status()
        return answer.json()

    def take_asked_again(self) -> int:
        """How often the box was busy since the last call of this."""
        with self._guard:
            count, self._asked_again = self._asked_again, 0
        return count

    def _session(self) -> requests.Session:
        if not hasattr(self._threads, "session"):
            session = requests.Session()
            # The box is on loopback: no proxy leads there.
            session.trust_env = False
            session.headers["Authorization"] = f"Bearer {self._key}"
            self._threads.session = session
        session = self._threads.session
        assert isinstance(session, requests.Session)
        return session
