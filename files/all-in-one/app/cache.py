"""Vectors of recent queries, in Redis. The box works without it, slower; nothing is lost when it vanishes."""

import hashlib
import threading
import time

import numpy as np
import redis

from app.log import log

Vector = np.ndarray[tuple[int], np.dtype[np.float32]]

TIMEOUT = 0.25  # seconds: longer than that and computing is quicker
PAUSE = 5.0  # seconds without Redis after it failed, so that a dead one does not slow every request
KEEP = 24 * 3600  # seconds


class VectorCache:
    """Keys hold the release, the role and a hash of the text: another model or role never meets an old vector."""

    def __init__(self, url: str) -> None:
        """Without a URL there is no cache, and that is no degradation."""
        self._client = _connect(url) if url else None
        self._guard = threading.Lock()
        self._failed_at = float("-inf")
        self._why = ""

    @property
    def degraded(self) -> str | None:
        """Why there is no cache at the moment, None while there is or none was asked for."""
        return self._why or None

    def check(self) -> None:
        """See whether Redis answers; `degraded` is right afterwards."""
        if self._client and self._due():
            try:
                self._client.ping()
                self._recover()
            except redis.RedisError as error:
                self._fail(error)

    def get(self, release: str, role: str, text: str) -> Vector | None:
        if not self._client or not self._due():
            return None
        try:
            found = self._client.get(_key(release, role, text))
            self._recover()
        except redis.RedisError as error:
            self._fail(error)
            return None
        return np.frombuffer(found, dtype="<f4") if isinstance(found, bytes) else None

    def put(self, release: str, role: str, text: str, vector: Vector) -> None:
        if not self._client or not self._due():
            return
        try:
            self._client.set(_key(release, role, text), vector.astype("<f4").tobytes(), ex=KEEP)
        except redis.RedisError as error:
            self._fail(error)

    def close(self) -> None:
        if self._client:
            self._client.close()

    def _due(self) -> bool:
        return time.monotonic() - self._failed_at > PAUSE

    def _recover(self) -> None:
        if self._why:
            log("cache_back")
            self._why = ""

    def _fail(self, error: redis.RedisError) -> None:
        with self._guard:
            if not self._why:
                log("cache_lost", "warning", error=type(error).__name__)
            self._why = f"Query vectors are not cached: Redis does not answer ({type(error).__name__})."
            self._failed_at = time.monotonic()


def _connect(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=None)


def _key(release: str, role: str, text: str) -> str:
    return f"vector:{release}:{role}:{hashlib.sha256(text.encode('utf-8')).hexdigest()}"
