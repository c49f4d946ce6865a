"""Bodies that arrive slowly, or are more together than the box has room for."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2
import pytest
from served import Served, served

from app import bodies
from app.settings import Settings

LINE = b'{"id": "a", "text": "x"}\n'
ROOM, MOST = 60_000, 50_000


@pytest.fixture
def box(ready_database: str, model_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(bodies, "TOGETHER", ROOM)
    with served(ready_database, Settings(max_body=MOST), None) as box:
        yield box


@contextmanager
def beginning(box: Served, size: int) -> Iterator[socket.socket]:
    """A client that has sent all of a body of MOST bytes but its end."""
    address = urlsplit(box.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as client:
        client.sendall(
            b"POST /documents HTTP/1.1\r\nHost: box\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\n"
            + f"Content-Length: {MOST}\r\n\r\n".encode()
            + LINE.ljust(size)
        )
        yield client


def send(box: Served, size: int) -> httpx2.Response:
    headers = {"content-type": "application/x-ndjson"}
    return httpx2.post(f"{box.url}/documents", content=LINE.ljust(size), headers=headers, timeout=30)


def sent_until_room_is_gone(box: Served, size: int) -> httpx2.Response:
    """The answer once it is no more 202: what another client sent arrives a moment later."""
    give_up = time.monotonic() + 30
    while (answer := send(box, size)).status_code == 202:
        assert time.monotonic() < give_up
    return answer


def test_bodies_that_are_too_much_together_wait_outside(box: Served) -> None:
    with beginning(box, MOST - 1) as client:
        answer = sent_until_room_is_gone(box, ROOM - MOST + 10)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
        assert int(answer.headers["retry-after"]) > 0
        assert send(box, len(LINE)).status_code == 202, "a small one fits"
        client.sendall(b" ")
        assert client.recv(100).startswith(b"HTTP/1.1 202")
    assert send(box, MOST).status_code == 202


def test_a_body_that_does_not_arrive_gives_its_room_back(box: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "READ_WITHIN", 0.5)
    with beginning(box, MOST - 1) as client:
        answer = client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408") and b"body_too_slow" in answer
    assert send(box, MOST).status_code == 202


def test_a_client_that_hangs_up_half_way_gives_its_room_back(box: Served) -> None:
    with beginning(box, MOST - 1):
        sent_until_room_is_gone(box, ROOM - MOST + 10)
    give_up = time.monotonic() + 30
    while send(box, MOST).status_code != 202:
        assert time.monotonic() < give_up, "its room is not given back"
