"""What the running box stands on is killed, stopped, cut off and filled up; documents are neither lost nor doubled."""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import outside
import stored
from faults import POSTGRES_DATA, cut_off, fill, is_ready, is_well, meanwhile, paused, small_disk, stopped
from onebox.client import Box
from outside import GENEROUS, ask, call, eventually, kill, sql, vm

DOCUMENTS, BATCH = 2000, 50
KILLED, EACH = ("worker", "app", "postgres", "redis"), 3
QUESTIONS = ("환불은 며칠 걸리나요?", "where is parcel 17", "E-417", "비 오는 날 배송")
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def key() -> str:
    """Of a box with something to find."""
    key = outside.key()
    outside.put_document(key, "returns-ko", "상품을 받고 14일 안에 환불을 신청하면 사흘 안에 돈을 돌려드립니다.")
    outside.put_document(key, "weather-en", "In rain and snow, parcels may arrive a day later. E-417 is not a parcel.")
    return key


def found(key: str, question: str) -> Any:
    """What a search finds, with its scores, without the reranker: its deadline depends on the machine's mood."""
    answer = ask("/search", {"query": question, "rerank": "off"}, key)
    assert answer.status == 200, answer
    return answer.body["results"]


def timed(key: str) -> tuple[list[Any], float]:
    """What is found for each question, and the seconds of the slowest."""
    results, slowest = [], 0.0
    for question in QUESTIONS:
        started = time.perf_counter()
        results.append(found(key, question))
        slowest = max(slowest, time.perf_counter() - started)
    return results, slowest


def text(number: int) -> str:
    """Short, and another one for each number; Korean and English."""
    if number % 2:
        return f"{number}번 상자는 {number % 37}번 선반에 있고, {number % 28 + 1}일에 나갑니다."
    return f"Parcel {number} is on shelf {number % 37} and leaves on day {number % 28 + 1}."


def feed(box: Box, chance: random.Random, jobs: list[str], over: threading.Event) -> None:
    """Submit all documents, batch by batch, the last one when the killing is over; note the ids of their jobs."""
    for start in range(0, DOCUMENTS, BATCH):
        if start + BATCH == DOCUMENTS:
            over.wait(GENEROUS)
        documents = [{"id": f"killed-{number}", "text": text(number)} for number in range(start, start + BATCH)]
        jobs.append(box.submit([json.dumps(document).encode() for document in documents]).job)
        time.sleep(chance.uniform(0.2, 1.3))


def test_whatever_is_killed_every_document_is_indexed_once(key: str) -> None:
    seed = int(os.environ.get("ONEBOX_SEED") or secrets.randbelow(2**32))
    print(f"ONEBOX_SEED={seed}")
    chance = random.Random(seed)
    order = list(KILLED) * EACH
    chance.shuffle(order)
    box = Box(outside.URL, key, persevere_s=GENEROUS)
    box.health()
    over, jobs = threading.Event(), list[str]()
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(feed, box, random.Random(seed + 1), jobs, over)
        try:
            for service in order:
                time.sleep(chance.uniform(1, 7))
                kill(service)
                print(f"{time.monotonic() - started:5.1f} s: {service} killed, {len(jobs) * BATCH} documents accepted")
        finally:
            killed_at = time.monotonic()
            over.set()
        feeding.result()
    assert len(jobs) == DOCUMENTS // BATCH
    eventually(lambda: all(box.job(job).finished for job in jobs))
    print(f"all jobs finished {time.monotonic() - killed_at:.0f} s after the last kill")
    statuses = [box.job(job) for job in jobs]
    assert [(job.status, job.documents, job.done) for job in statuses] == [("done", BATCH, BATCH)] * len(jobs)
    state = stored.state("killed-")
    print(state)
    wrong = {name: count for name, count in state.items() if name not in ("documents", "chunks") and count}
    assert wrong == {}
    assert state["documents"] == DOCUMENTS and state["chunks"] >= DOCUMENTS
    digests = {f"killed-{number}": hashlib.md5(text(number).encode()).hexdigest() for number in range(DOCUMENTS)}
    assert stored.texts("killed-") == digests
    eventually(lambda: is_well(key))


def test_without_redis_the_same_is_found_and_health_says_what_is_missing(key: str) -> None:
    before, _ = timed(key)
    cached, with_redis = timed(key)
    assert cached == before
    with meanwhile("docker stop onebox-redis-1", "docker start onebox-redis-1"):
        without, slowest = timed(key)
        print(
            f"slowest of {len(QUESTIONS)} searches: {with_redis * 1000:.0f} ms cached, "
            f"{slowest * 1000:.0f} ms without Redis"
        )
        assert without == before
        health = call("/health", key=key)[1]
        assert health["status"] == "degraded" and "Redis does not answer" in " ".join(health["degraded"])
        assert call("/readyz")[0] == 200
    print(f"well again {eventually(lambda: is_well(key)):.1f} s after Redis was started")
    assert timed(key)[0] == before
    assert int(vm("docker exec onebox-redis-1 valkey-cli dbsize")) >= len(QUESTIONS), "nothing is cached again"


@pytest.mark.parametrize("gone", [stopped, cut_off, paused])
def test_without_postgres_it_says_when_to_come_back_and_recovers(
    key: str, gone: Callable[[], Any], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    with gone():
        for path, body in (("/search", {"query": "E-417"}), ("/documents", {"id": "not-kept", "text": "글"})):
            started = time.monotonic()
            answer = ask(path, body, key)
            print(f"{name}: {path} refused after {time.monotonic() - started:.1f} s")
            assert (answer.status, answer.code) == (503, "database_unavailable"), answer
            assert int(answer.headers["retry-after"]) > 0
        assert call("/livez")[0] == 200
        eventually(lambda: call("/readyz")[0] == 503)
        assert call("/health", key=key)[1]["status"] == "unavailable"
        assert call("/v1/embeddings", {"input": "E-417"}, key)[0] == 200, "that needs no database"
    print(f"{name}: ready {eventually(is_ready):.1f} s after it was back")
    assert found(key, "E-417")
    assert call("/documents/not-kept", key=key)[0] == 404
    # The worker too.
    outside.put_document(key, f"after-{name}", "It works again.")


def test_postgres_reads_again_what_it_had_in_memory_when_it_stopped(key: str) -> None:
    assert found(key, "E-417")
    since = vm("date +%s").strip()
    with stopped():
        assert int(vm(f"stat --format=%s {POSTGRES_DATA}/autoprewarm.blocks")) > 0
    told = "autoprewarm successfully prewarmed"
    eventually(lambda: told in vm(f"docker logs --since {since} onebox-postgres-1 2>&1"))
    eventually(is_ready)


def test_a_document_that_cannot_be_indexed_is_parked_and_others_flow(key: str) -> None:
    """Postgres refuses its chunks, and nobody else's: there is no text known that the worker itself stumbles over."""
    chunks = f"generation_{stored.generation()}_chunks"
    sql(
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION 'this chunk is poison'; END $$;"
        f" CREATE TRIGGER poison BEFORE INSERT ON {chunks} FOR EACH ROW WHEN (NEW.document_id = 'poison')"
        " EXECUTE FUNCTION poison()"
    )
    try:
        given = [{"id": name, "text": f"About {name}."} for name in ("poison-before", "poison", "poison-after")]
        job = call("/documents", given, key)[1]["job"]
        outside.put_document(key, "poison-meanwhile", "It flows past the others.")
        assert not Box(outside.URL, key).job(job).finished, "it was not tried again"
        took = eventually(lambda: Box(outside.URL, key).job(job).finished)
        print(f"parked after {took:.0f} s")
        status = call(f"/jobs/{job}", key=key)[1]
        assert (status["status"], status["done"]) == ("failed", 2)
        assert [failure["document"] for failure in status["failures"]] == ["poison"]
        assert "this chunk is poison" in status["failures"][0]["reason"]
        (parked,) = [item for item in Box(outside.URL, key).parked() if item["document"] == "poison"]
        assert parked["attempts"] == 3 and "this chunk is poison" in parked["reason"]
        assert call("/documents/poison-after", key=key)[1]["state"] == "indexed"
    finally:
        sql(f"DROP TRIGGER poison ON {chunks}; DROP FUNCTION poison()")
    assert call("/admin/requeue", {"documents": ["poison"]}, key)[1] == {"requeued": 1}
    eventually(lambda: call("/documents/poison", key=key)[1]["state"] == "indexed")
    assert Box(outside.URL, key).job(job).status == "done"


def large(name: str) -> Mapping[str, Any]:
    """A document of three megabytes that do not get smaller, though its text is short."""
    return {"id": name, "text": "글", "metadata": {"noise": secrets.token_hex(1_500_000)}}


def test_on_a_full_disk_it_says_so_keeps_nothing_half_and_goes_on_once_there_is_room(key: str) -> None:
    before, _ = timed(key)
    with small_disk():
        # Documents for the worker to run out of room with.
        vm("docker pause onebox-worker-1")
        waiting = [{"id": f"full-{number}", "text": text(DOCUMENTS + number)} for number in range(500)]
        job = call("/documents", waiting, key)[1]["job"]
        fill()
        given = stored.counts()
        answer = ask("/documents", [large("too-large"), {"id": "too-large-too", "text": "글"}], key)
        print(f"{answer.status}: {answer.body}")
        assert (answer.status, answer.code) == (503, "disk_full"), answer
        assert int(answer.headers["retry-after"]) > 0
        assert stored.counts() == given, "something of a refused request was stored"
        assert call("/documents/too-large-too", key=key)[0] == 404
        assert timed(key)[0] == before, "what is stored is not found any more"
        since = vm("date +%s").strip()
        vm("docker unpause onebox-worker-1")
        eventually(lambda: "no room left" in vm(f"docker logs --since {since} onebox-worker-1 2>&1"))
        assert Box(outside.URL, key).job(job).status in ("queued", "running")
        vm(f"rm {POSTGRES_DATA}/ballast")
        took = eventually(lambda: Box(outside.URL, key).job(job).finished)
        print(f"what had waited for room was indexed {took:.0f} s after there was some")
        assert Box(outside.URL, key).job(job).status == "done"
        answer = ask("/documents", large("too-large"), key)
        assert answer.status == 202
        assert eventually(lambda: call("/documents/too-large", key=key)[1]["state"] == "indexed")
        state = stored.state("full-")
        assert {name: count for name, count in state.items() if name not in ("documents", "chunks") and count} == {}
