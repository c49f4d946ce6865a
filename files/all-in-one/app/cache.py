"""Vectors of texts that were asked for lately, in Redis. The box works without it, slower; nothing is lost with it."""

import hashlib
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis

from app.log import log

TIMEOUT = 0.25  # seconds: longer than that and computing is quicker
PAUSE = 5.0  # seconds without Redis after it failed, so that a dead one does not slow every request
KEEP = 24 * 3600  # seconds
HEADER = struct.Struct("<I?")  # tokens, truncated; float32 values follow


@dataclass(frozen=True)
class Cached:
    """A text's vector [dim] float32, the tokens it took, and whether it was cut to fit."""

    vector: np.ndarray[Any, np.dtype[np.float32]]
    tokens: int
    truncated: bool


class VectorCache:
    """Without a URL there is no cache, and that is no degradation."""

    def __init__(self, url: str) -> None:
        self._client = _connect(url) if url else None
        self._guard = threading.Lock()
        self._failed_at = float("-inf")
        self._why = ""
        self.lookups = {"hit": 0, "miss": 0}  # texts; without an answer of Redis none is a hit

    @staticmethod
    def key(release: str, role: str, text: str) -> str:
        """Names release, role and a hash of the text: another model or role never meets an old vector."""
        return f"vector:{release}:{role}:{hashlib.sha256(text.encode('utf-8')).hexdigest()}"

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

    def get_many(self, keys: Sequence[str], dimension: int) -> dict[str, Cached]:
        """What is known of the keys; entries of another dimension are not believed."""
        if not keys or not self._client:
            return {}
        known = self._read(self._client, keys, dimension)
        with self._guard:
            self.lookups["hit"] += len(known)
            self.lookups["miss"] += len(keys) - len(known)
        return known

    def _read(self, client: redis.Redis, keys: Sequence[str], dimension: int) -> dict[str, Cached]:
        if not self._due():
            return {}
        try:
            found: Any = client.mget(keys)
            self._recover()
        except redis.RedisError as error:
            self._fail(error)
            return {}
        size = HEADER.size + 4 * dimension
        return {
            key: _unpack(entry)
            for key, entry in zip(keys, found, strict=True)
            if isinstance(entry, bytes) and len(entry) == size
        }

    def put_many(self, entries: Mapping[str, Cached]) -> None:
        if not entries or not self._client or not self._due():
            return
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for key, entry in entries.items():
                    pipeline.set(key, _pack(entry), ex=KEEP)
                pipeline.execute()
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
            self._why = (
                f"Redis does not answer ({type(error).__name__}): vectors are not cached, "
                "and this process counts rates by itself."
            )
            self._failed_at = time.monotonic()


def _connect(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=None)


def _pack(entry: Cached) -> bytes:
    return HEADER.pack(entry.tokens, entry.truncated) + entry.vector.astype("<f4").tobytes()


def _unpack(content: bytes) -> Cached:
    tokens, truncated = HEADER.unpack_from(content)
    return Cached(np.frombuffer(content, dtype="<f4", offset=HEADER.size).astype(np.float32), tokens, truncated)
