"""Who may do what, and how often: over a real app, its file of keys and a real Valkey."""

import asyncio
import hashlib
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import payload_process
import pytest
import waiting
from box import Box, running_app
from starlette.datastructures import Headers
from valkey_server import Valkey

from app import keys, limiter, log
from app.guard import client_address, scope_of
from app.keys import key_of
from app.limiter import Limiter
from app.settings import Settings

eventually = partial(waiting.eventually, seconds=15)
PLAIN = {"search-key": ["search"], "ingest-key": ["ingest"], "admin-key": ["admin"], "both-key": ["search", "ingest"]}
KEYS = tuple(key_of(plain, scopes, plain) for plain, scopes in PLAIN.items())
DOCUMENT = {"id": "returns", "text": "반품은 상품을 받은 날부터 7일 안에 할 수 있습니다."}
REQUESTS: tuple[tuple[str, str, Any, str], ...] = (
    ("POST", "/search", {"query": "반품"}, "search"),
    ("POST", "/v1/embeddings", {"input": "반품"}, "search"),
    ("POST", "/v1/rerank", {"query": "반품", "documents": ["반품"]}, "search"),
    ("POST", "/documents", DOCUMENT, "ingest"),
    ("GET", "/documents/returns", None, "ingest"),
    ("DELETE", "/documents/returns", None, "ingest"),
    ("GET", "/jobs/00000000-0000-0000-0000-000000000000", None, "ingest"),
    ("GET", "/admin/parked", None, "admin"),
    ("GET", "/not/thought/of", None, "admin"),
)


@pytest.fixture(scope="module")
def box(ready_database: str, model_environment: dict[str, str]) -> Iterator[Box]:
    with running_app(ready_database, Settings(keys=KEYS)) as box:
        yield box


@pytest.fixture(scope="module")
def public(ready_database: str, model_environment: dict[str, str]) -> Iterator[Box]:
    with running_app(ready_database, Settings(keys=KEYS, public_search=True)) as box:
        yield box


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    server.start()
    yield server
    server.kill()


@contextmanager
def limited(database: str, **settings: Any) -> Iterator[Box]:
    with running_app(database, Settings(keys=KEYS, **settings)) as box:
        yield box


def ask(box: Box, key: str | None, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
    headers["authorization"] = f"Bearer {key}" if key is not None else ""
    if key is None:
        del box.client.headers["authorization"]
        del headers["authorization"]
    try:
        return box.client.request(method, path, json=body, headers=headers)
    finally:
        box.client.headers["authorization"] = "Bearer the-key"


def search(box: Box, key: str | None, **headers: str) -> httpx2.Response:
    return ask(box, key, "POST", "/search", {"query": "반품"}, **headers)


# Scopes


@pytest.mark.parametrize("plain", PLAIN)
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: f"{request[0]} {request[1]}")
def test_a_key_does_what_its_scopes_say(box: Box, plain: str, request_: tuple[str, str, Any, str]) -> None:
    method, path, body, scope = request_
    answer = ask(box, plain, method, path, body)
    if scope in PLAIN[plain] or PLAIN[plain] == ["admin"]:
        assert answer.status_code not in (401, 403), answer.text
        return
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("insufficient_scope", "permission_error")
    assert f"takes the scope {scope}; the key has {', '.join(sorted(PLAIN[plain]))}" in error["message"]
    assert answer.headers["www-authenticate"] == f'Bearer error="insufficient_scope", scope="{scope}"'


@pytest.mark.parametrize("plain", PLAIN)
def test_any_key_reads_the_description_of_the_interface(box: Box, plain: str) -> None:
    assert ask(box, plain, "GET", "/openapi.json").status_code == 200


def test_health_tells_all_to_an_administrator_only(box: Box) -> None:
    assert set(ask(box, None, "GET", "/health").json()) == {"status"}
    assert set(ask(box, "wrong", "GET", "/health").json()) == {"status"}
    assert set(ask(box, "search-key", "GET", "/health").json()) == {"status", "documents"}
    assert "models" in ask(box, "admin-key", "GET", "/health").json()


def test_a_path_nobody_thought_of_takes_admin() -> None:
    assert [scope_of(path) for path in ("/search", "/searching", "//search", "", "/admin/x", "/openapi.json")] == [
        "search", "admin", "admin", "admin", "admin", None,
    ]  # fmt: skip


def test_the_log_names_the_key_and_never_says_it(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(log, "stream", written)
    plain = "plain-text-of-a-key"
    box.services.keys._keys = (*KEYS, key_of("shop", ["search"], plain))
    try:
        search(box, plain)
        ask(box, plain, "GET", "/admin/parked")
    finally:
        box.services.keys._keys = KEYS
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(line["status"], line["key"]) for line in lines] == [(200, "shop"), (403, "shop")]
    assert plain not in written.getvalue()
    assert hashlib.sha256(plain.encode()).hexdigest() not in written.getvalue()


# Changes


def test_keys_come_and_go_without_a_restart(
    ready_database: str, model_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "LOOK", 0.05)
    payload_process.write_keys(tmp_path, {"old-key": ["search"]})
    file = tmp_path / "keys.json"
    with running_app(ready_database, Settings(keys=keys.read(file), key_file=file)) as box:
        assert search(box, "old-key").status_code == 200
        assert search(box, "new-key").status_code == 401
        payload_process.write_keys(tmp_path, {"old-key": ["search"], "new-key": ["search"]})
        eventually(lambda: search(box, "new-key").status_code == 200)
        assert search(box, "old-key").status_code == 200
        payload_process.write_keys(tmp_path, {"new-key": ["search"]})
        eventually(lambda: search(box, "old-key").status_code == 401)
        assert search(box, "new-key").status_code == 200

        file.write_text("not what was meant", encoding="utf-8")
        eventually(lambda: box.services.keys.problem is not None)
        assert search(box, "new-key").status_code == 200, "a broken file locks nobody out"
        health = ask(box, box.services.keys.own, "GET", "/health").json()
        assert health["status"] == "degraded" and "is not JSON" in health["degraded"][0]
        payload_process.write_keys(tmp_path, {"new-key": ["search"]})
        eventually(lambda: box.services.keys.problem is None)


# Rates


def test_a_key_that_asks_too_often_is_told_when_to_come_back(
    ready_database: str, model_environment: dict[str, str], valkey: Valkey
) -> None:
    with limited(ready_database, rate_limit=120, redis_url=valkey.url) as box:
        started, allowed = time.monotonic(), 0
        while (refused := ask(box, "search-key", "GET", "/openapi.json")).status_code == 200:
            allowed += 1
        earned = 2 * (time.monotonic() - started)
        assert 119 <= allowed <= 121 + earned
        assert refused.status_code == 429
        error = refused.json()["error"]
        assert (error["code"], error["type"]) == ("rate_limited", "rate_limit_error")
        assert refused.headers["retry-after"] == "1"
        assert ask(box, "admin-key", "GET", "/openapi.json").status_code == 200, "another key has its own allowance"
        assert ask(box, "search-key", "GET", "/livez").status_code == 200
        time.sleep(1.0)
        assert ask(box, "search-key", "GET", "/openapi.json").status_code == 200, "Retry-After was the truth"


def test_a_key_may_have_a_rate_of_its_own(ready_database: str, model_environment: dict[str, str]) -> None:
    slow, free = (replace(key_of(name, ["search"], name), rate_limit=rate) for name, rate in (("slow", 1), ("free", 0)))
    with running_app(ready_database, Settings(keys=(slow, free, *KEYS), rate_limit=2)) as box:
        asked = {key: [search(box, key).status_code for _ in range(3)] for key in ("slow", "search-key", "free")}
    assert asked == {"slow": [200, 429, 429], "search-key": [200, 200, 429], "free": [200, 200, 200]}


def test_while_redis_is_away_the_process_counts_by_itself(
    ready_database: str, model_environment: dict[str, str], valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter, "PAUSE", 0.2)
    with limited(ready_database, rate_limit=3, redis_url=valkey.url) as box:
        assert [search(box, "search-key").status_code for _ in range(4)] == [200, 200, 200, 429]
        valkey.kill()
        assert [search(box, "search-key").status_code for _ in range(4)] == [200, 200, 200, 429]
        health = ask(box, "admin-key", "GET", "/health").json()
        assert health["status"] == "degraded" and "counts rates by itself" in health["degraded"][0]
        valkey.start()
        time.sleep(0.3)
        assert [search(box, "search-key").status_code for _ in range(4)] == [200, 200, 200, 429]


async def waits(counting: Limiter, *asked: tuple[str, int]) -> list[int]:
    return [await counting.wait("key", client, limit) for client, limit in asked]


@pytest.mark.parametrize("with_redis", [True, False])
def test_the_wait_is_what_one_request_takes_to_earn(valkey: Valkey, with_redis: bool) -> None:
    async def run() -> list[int]:
        counting = Limiter(valkey.url if with_redis else "")
        try:
            return await waits(counting, ("a", 2), ("a", 2), ("a", 2), ("b", 2), ("c", 0), ("c", 0))
        finally:
            await counting.close()

    assert asyncio.run(run()) == [0, 0, 30, 0, 0, 0]


def test_many_clients_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "CLIENTS", 10)
    counting = Limiter("")
    for number in range(100):
        counting._count_here(str(number), 60)
    assert len(counting._local) == 10


# Searching without a key


def test_public_search_opens_the_page_and_searching_and_nothing_else(public: Box) -> None:
    assert search(public, None).status_code == 200
    assert ask(public, None, "GET", "/").status_code == 200
    for method, path, body, _ in REQUESTS[1:]:
        assert ask(public, None, method, path, body).status_code == 401, path
    assert ask(public, None, "GET", "/search").status_code == 401
    assert set(ask(public, None, "GET", "/health").json()) == {"status"}


def test_a_wrong_key_is_refused_where_none_would_do(public: Box) -> None:
    assert search(public, "wrong").status_code == 401
    assert search(public, "ingest-key").status_code == 403


def test_who_searches_without_a_key_is_counted_by_address(
    ready_database: str, model_environment: dict[str, str]
) -> None:
    with limited(ready_database, public_search=True, public_rate_limit=2, proxies=1) as box:
        first = [search(box, None, **{"x-forwarded-for": "203.0.113.7"}).status_code for _ in range(3)]
        forged = {"x-forwarded-for": "198.51.100.1, 203.0.113.7"}
        assert first == [200, 200, 429]
        refused = search(box, None, **forged)
        assert refused.status_code == 429, "what a client writes itself does not count"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert search(box, None, **{"x-forwarded-for": "203.0.113.8"}).status_code == 200
        assert search(box, "search-key", **forged).status_code == 200


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "counted"),
    [
        ("192.0.2.1", "203.0.113.7", 0, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.7", 1, "203.0.113.7"),
        ("192.0.2.1", "1.1.1.1, 203.0.113.7, 192.0.2.9", 2, "203.0.113.7"),
        ("192.0.2.1", "", 1, "192.0.2.1"),
        ("192.0.2.1", "what?", 1, "unknown"),
        ("2001:db8:1:2:3::4", "", 0, "2001:db8:1:2::/64"),
    ],
)
def test_an_address_is_the_peer_or_what_our_proxies_say(peer: str, forwarded: str, proxies: int, counted: str) -> None:
    headers = Headers({"x-forwarded-for": forwarded} if forwarded else {})
    assert client_address({"client": (peer, 1)}, headers, proxies) == counted
