"""What every request passes first: an id, the key, the size of its body, a line in the log."""

import asyncio
import hmac
import re
import secrets
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ApiError, response, unexpected
from app.log import log, request_id
from app.settings import Settings
from app.waiting import begin

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/health"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def has_key(headers: Headers, keys: tuple[str, ...]) -> bool:
    """True with one of the keys, or when none is needed. Compared in constant time, all of them."""
    if not keys:
        return True
    scheme, _, given = headers.get("authorization", "").partition(" ")
    offered = given.strip().encode("utf-8") if scheme.lower() == "bearer" else b""
    matches = [hmac.compare_digest(offered, key.encode("utf-8")) for key in keys]
    return any(matches)


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        identity = offered if _REQUEST_ID.fullmatch(offered) else secrets.token_hex(8)
        token = request_id.set(identity)
        started = time.monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", identity.encode("ascii"))]
            await send(message)

        try:
            await self._admit(scope, headers, receive, send_with_id)
        except Exception as error:
            if status:
                raise
            await unexpected(error)(scope, receive, send_with_id)
        finally:
            self._log(scope, status, started)
            request_id.reset(token)

    async def _admit(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if scope["path"] not in OPEN_PATHS and not has_key(headers, self._settings.keys):
            error = ApiError(401, "A key is needed: send the header Authorization: Bearer KEY.", code="invalid_api_key")
            await response(error)(scope, receive, send)
            return
        body = await self._read(headers, receive)
        if body is None:
            most = self._settings.max_body
            error = ApiError(413, f"The body has more than {most} bytes; send less at once.", code="body_too_large")
            await response(error)(scope, receive, send)
            return
        await _answer(self._app, scope, body, receive, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body, None once it is too large."""
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self._settings.max_body:
            return None
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return b""
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._settings.max_body:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)

    def _log(self, scope: Scope, status: int, started: float) -> None:
        # The route's pattern where there is one: ids of documents are the customer's.
        route = scope.get("route")
        path = getattr(route, "path", None) or (scope["path"] if scope["path"] in OPEN_PATHS else "(none)")
        if path in ("/livez", "/readyz") and status < 400:
            return
        elapsed = round((time.monotonic() - started) * 1000, 1)
        log("request", method=scope["method"], path=path, status=status, ms=elapsed)


async def _answer(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Hand the request on, and note when its client hangs up meanwhile."""
    gone = begin()
    hung_up = asyncio.Event()
    sent = False

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()
        hung_up.set()

    async def replay() -> Message:
        nonlocal sent
        if sent:
            await hung_up.wait()
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    watcher = asyncio.create_task(watch())
    try:
        await app(scope, replay, send)
    finally:
        watcher.cancel()
