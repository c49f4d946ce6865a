"""Bodies of requests: read whole, and bounded, each by itself and all together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.errors import ApiError

# Bytes of all requests that are at work or on their way: what a request computes takes several times its body.
TOGETHER = 64 * 1024 * 1024
READ_WITHIN = 120.0  # seconds: who sends more slowly would hold that room for ever


class Bodies:
    """`most` is the bytes of one body; where that is above what all may have together, one at a time may."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._together = max(TOGETHER, most)
        self._held = 0

    @asynccontextmanager
    async def read(self, headers: Headers, receive: Receive) -> AsyncIterator[bytes]:
        """The body, which counts until the context ends; empty when the client hung up.

        ApiError 413 when it is too large, 429 when those of others leave no room, 408 when it does not arrive.
        """
        declared = headers.get("content-length", "0")
        if declared.isdigit():
            self._check(int(declared), 0)
        parts: list[bytes] = []
        size = 0
        try:
            try:
                async with asyncio.timeout(READ_WITHIN):
                    async for part in _parts(receive):
                        self._check(size + len(part), size)
                        parts.append(part)
                        size += len(part)
                        self._held += len(part)
            except TimeoutError:
                message = f"The body did not arrive within {READ_WITHIN:.0f} s; send less at once."
                raise ApiError(408, message, code="body_too_slow") from None
            except ClientDisconnect:
                parts.clear()
            yield b"".join(parts)
        finally:
            self._held -= size

    def _check(self, size: int, held: int) -> None:
        """ApiError when a body of so many bytes, `held` of which are here, cannot be taken."""
        if size > self._most:
            raise ApiError(413, f"The body has more than {self._most} bytes; send less at once.", code="body_too_large")
        others = self._held - held
        if others and others + size > self._together:
            message = f"The box is overloaded: {others} bytes of requests are at work. Try again in 2 s."
            raise ApiError(429, message, code="overloaded", retry_after=2)


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        yield message.get("body", b"")
        more = message.get("more_body", False)
