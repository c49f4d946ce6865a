"""What every request passes first: an id, the key, its rate, the size of its body, a line in the log."""

import asyncio
import ipaddress
import re
import secrets
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.bodies import Bodies
from app.errors import ApiError, response, unexpected
from app.keys import Key
from app.log import log, request_id
from app.services import REQUESTS, Services
from app.waiting import begin

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/health"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
PUBLIC = ("POST", "/search")  # with stack_public_search
# What each part of the interface takes, by the first part of the path. What is not here takes admin.
SCOPES = {
    "search": "search",
    "v1": "search",
    "v2": "search",
    "documents": "ingest",
    "jobs": "ingest",
    "admin": "admin",
    "openapi.json": None,  # any key
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def scope_of(path: str) -> str | None:
    """The scope that a path takes, None where any key does."""
    return SCOPES.get(path.split("/", 2)[1] if path.startswith("/") else "", "admin")


def client_address(scope: Scope, headers: Headers, proxies: int) -> str:
    """Whom to count requests of: the peer, or the peer of the outermost of our proxies; IPv6 by its network."""
    client = scope.get("client")
    address = client[0] if client else ""
    forwarded = [part.strip() for part in ",".join(headers.getlist("x-forwarded-for")).split(",") if part.strip()]
    if proxies and len(forwarded) >= proxies:
        address = forwarded[-proxies]
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(known, ipaddress.IPv6Address) and not known.ipv4_mapped:
        return str(ipaddress.ip_network((known, 64), strict=False))
    return str(known)


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._settings = services.settings
        self._keys = services.keys
        self._limiter = services.limiter
        self._metrics = services.metrics
        self._bodies = Bodies(services.settings.max_body)
        self._at_work = 0

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
            self._account(scope, status, time.monotonic() - started)
            request_id.reset(token)

    async def _admit(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        key = scope["key"] = self._keys.find(headers.get("authorization", ""))
        if scope["path"] in OPEN_PATHS:
            # They take no body: none is read for somebody without a key.
            await _answer(self._app, scope, b"", receive, send)
        elif refusal := await self._refuse(scope, headers, key) or self._full():
            await response(refusal)(scope, receive, send)
        else:
            try:
                async with self._bodies.read(headers, receive) as body:
                    await self._work(scope, body, receive, send)
            except ApiError as error:
                await response(error)(scope, receive, send)

    async def _work(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        # Once more: whoever sends a body slowly must not keep others out meanwhile.
        if refusal := self._full():
            raise refusal
        self._at_work += 1
        try:
            await _answer(self._app, scope, body, receive, send)
        finally:
            self._at_work -= 1

    async def _refuse(self, scope: Scope, headers: Headers, key: Key | None) -> ApiError | None:
        """Why a request is not let in: no key, a key without the scope, or too many requests."""
        wanted = scope_of(scope["path"])
        if key is None:
            public = self._settings.public_search and (scope["method"], scope["path"]) == PUBLIC
            if not public or "authorization" in headers:
                message = "A key is needed: send the header Authorization: Bearer KEY."
                return ApiError(401, message, code="invalid_api_key")
            client = client_address(scope, headers, self._settings.proxies)
            return await self._too_many("address", client, self._settings.public_rate_limit)
        if not key.may(wanted):
            return ApiError(
                403,
                f"This takes the scope {wanted}; the key has {', '.join(sorted(key.scopes))}.",
                code="insufficient_scope",
                scope=wanted,
            )
        limit = self._settings.rate_limit if key.rate_limit is None else key.rate_limit
        return await self._too_many("key", key.name, limit)

    async def _too_many(self, kind: str, client: str, limit: int) -> ApiError | None:
        seconds = await self._limiter.wait(kind, client, limit)
        if not seconds:
            return None
        message = f"More than {limit} requests a minute with this {kind}. Try again in {seconds} s."
        return ApiError(429, message, code="rate_limited", retry_after=seconds)

    def _full(self) -> ApiError | None:
        if self._at_work < REQUESTS:
            return None
        message = f"The box is overloaded: {self._at_work} requests are at work. Try again in 1 s."
        return ApiError(429, message, code="overloaded", retry_after=1)

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        """Count an answered request, and log it."""
        # The route's pattern where there is one: ids of documents are the customer's.
        path = getattr(scope.get("route"), "path", None) or (scope["path"] if scope["path"] in OPEN_PATHS else "(none)")
        # A client may call its method what it likes.
        method = scope["method"] if scope["method"] in METHODS else "(other)"
        self._metrics.requests.labels(method, path, str(status)).inc()
        self._metrics.request_seconds.labels(method, path).observe(seconds)
        if path in ("/livez", "/readyz") and status < 400:
            return
        key = scope.get("key")
        named = {"key": key.name} if key and key.name else {}
        log("request", method=method, path=path, status=status, ms=round(seconds * 1000, 1), **named)


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
        # A service that stops does not wait for what it still computes for a request that it gave up.
        gone.set()
