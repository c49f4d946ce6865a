"""The running box under the searches it is made for, and under ten times as many."""

from __future__ import annotations

import json
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest

import clients
import outside
from onebox.client import Box
from outside import call, vm

CORPUS = Path(__file__).resolve().parents[2] / "demo" / "corpus"
CLIENTS, SECONDS = 8, 60
TIMES, OVERLOAD_SECONDS = 10, 25
# What the box promises a search that it takes: predicted waits up to stack_query_wait_ms for the model and up to
# PATIENCE in store/connection.py for the database, and stack_rerank_deadline_ms for the reranker.
DEADLINE = 2.0 + 3.0 + 2.0


def lines(name: str) -> list[bytes]:
    return (CORPUS / name).read_bytes().splitlines()


QUERIES = [json.loads(line)["query"] for name in ("queries.jsonl", "heldout.jsonl") for line in lines(name)]


@pytest.fixture(scope="module")
def key() -> str:
    """Of a box that holds the sample corpus."""
    key = outside.key()
    box = Box(outside.URL, key, persevere_s=120)
    passages = [json.loads(line) for line in lines("passages.jsonl")]
    documents = [{name: passage[name] for name in ("id", "title", "text")} for passage in passages]
    submission = box.submit([json.dumps(document).encode() for document in documents])
    assert submission.refused == {}
    while not (job := box.job(submission.job)).finished:
        time.sleep(0.5)
    assert job.status == "done", job
    return key


@pytest.mark.parametrize("rerank", ["auto", "off"])
def test_eight_clients_search_for_a_minute_without_an_error(key: str, rerank: str) -> None:
    answers = clients.search(key, CLIENTS, SECONDS, lambda number: QUERIES[number % len(QUERIES)], rerank=rerank)
    # Printed, not judged: machines differ.
    print(f"{CLIENTS} clients, {len(QUERIES)} queries over and over, rerank {rerank}: {answers}")
    assert answers.unexpected == [] and not answers.refused
    assert len(answers.seconds) > CLIENTS


def container(name: str) -> str:
    return vm(f"docker inspect --format '{{{{.State.StartedAt}}}} {{{{.State.OOMKilled}}}}' onebox-{name}-1").strip()


@contextmanager
def memory_of_the_app(seconds: int) -> Iterator[list[float]]:
    """Filled, at the end, with percentages of the container's limit, every two seconds or so."""
    percentages: list[float] = []
    look = "docker stats --no-stream --format '{{.MemPerc}}' onebox-app-1"
    command = f"for i in $(seq {seconds // 2}); do sudo {look}; done"
    process = subprocess.Popen([*outside.SSH, command], stdout=subprocess.PIPE, text=True)
    yield percentages
    output, _ = process.communicate(timeout=120)
    percentages += [float(line.strip("%\n ")) for line in output.splitlines()]


@contextmanager
def probed() -> Iterator[dict[str, list[float]]]:
    """Seconds that each probe took, while the box is at work; every one must be answered with 200."""
    took: dict[str, list[float]] = {"/livez": [], "/readyz": []}
    failed: list[str] = []
    done = threading.Event()

    def probe() -> None:
        for path in cycle(took):
            started = time.perf_counter()
            status, body = call(path)
            took[path].append(time.perf_counter() - started)
            if status != 200:
                failed.append(f"{path}: {status} {body}")
            if done.wait(1):
                return

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield took
    finally:
        done.set()
        thread.join()
    assert failed == []


def test_ten_times_as_many_are_answered_in_time_or_told_to_come_back(key: str) -> None:
    """Each query is another one, so that each costs an inference; who is refused asks again much too soon."""
    before = container("app")
    count = TIMES * CLIENTS
    with memory_of_the_app(OVERLOAD_SECONDS) as memory, probed() as took:
        answers = clients.search(
            key, count, OVERLOAD_SECONDS, lambda number: f"{QUERIES[number % len(QUERIES)]} {number}"
        )
    print(f"{count} clients: {answers}; Retry-After {dict(answers.refused)}")
    print(f"memory of the app, % of its limit: median {statistics.median(memory):.0f}, most {max(memory):.0f}")
    print("slowest probe: " + ", ".join(f"{path} {max(seconds) * 1000:.0f} ms" for path, seconds in took.items()))
    assert answers.unexpected == [], answers.unexpected[:5]
    assert answers.refused, "nothing was refused: that was no overload"
    assert answers.percentile(95) < DEADLINE
    assert max(memory) < 100 and container("app") == before, "it was restarted"
    # And over it is.
    status, body = call("/search", {"query": QUERIES[0]}, key)
    assert status == 200 and body["results"]


def test_large_bodies_at_once_leave_the_app_its_memory(key: str) -> None:
    """Each as large as the box takes, of one document more than it takes: read and understood, then refused."""
    before = container("app")
    documents = [{"id": f"{number}", "text": "글 " * 1900} for number in range(1001)]
    body = json.dumps(documents, ensure_ascii=False).encode()
    assert 7 << 20 < len(body) < 8 << 20
    with memory_of_the_app(OVERLOAD_SECONDS) as memory:
        told = clients.send(key, TIMES * CLIENTS, OVERLOAD_SECONDS, body)
    print(f"{TIMES * CLIENTS} clients, {len(body) >> 20} MB each: {dict(told)}")
    print(f"memory of the app, % of its limit: median {statistics.median(memory):.0f}, most {max(memory):.0f}")
    assert set(told) == {"413 too_many", "429 overloaded"}
    assert max(memory) < 100 and container("app") == before, "it was restarted"
