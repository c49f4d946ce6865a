"""What Prometheus reads of a running app and worker: real processes, asked through their ports."""

import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from payload_process import ROOT, Process, environment, run, write_keys
from prometheus_client.parser import text_string_to_metric_families
from valkey_server import Valkey
from waiting import eventually

from store.connection import connect

DASHBOARD = ROOT.parent / "grafana-dashboard.json"
PATIENCE = 60.0  # seconds
KEYS = {"the-key": ["admin"], "a-search-key": ["search"]}
LANE = ("onebox_lane_tokens", "onebox_lane_running", "onebox_lane_requests", "onebox_lane_wait_seconds")
TEXT = "반품은 상품을 받은 날부터 7일 안에 할 수 있습니다. "

Labels = dict[str, str]
Samples = dict[str, list[tuple[Labels, float]]]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def fetch(port: str, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        text: str = answer.read().decode("utf-8")
        return text


@dataclass
class Box:
    """An app that runs, and the environments that it and a worker are started with."""

    app: dict[str, str]
    worker: dict[str, str]
    folder: Path
    database: str

    def ask(self, method: str, path: str, body: Any = None, key: str | None = "the-key") -> tuple[int, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.app['APP_PORT']}{path}", method=method)
        if key is not None:
            request.add_header("authorization", f"Bearer {key}")
        if body is not None:
            request.add_header("content-type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def value(self, name: str, /, **labels: str) -> float:
        """Of the app's series with these labels; 0 for one that is not there."""
        return self._value(self.app, name, labels)

    def worked(self, name: str, /, **labels: str) -> float:
        """The same of the worker."""
        return self._value(self.worker, name, labels)

    def has(self, name: str) -> bool:
        return name in samples(fetch(self.app["METRICS_PORT"]))

    def _value(self, container: dict[str, str], name: str, labels: Labels) -> float:
        found = samples(fetch(container["METRICS_PORT"])).get(name, [])
        return sum(value for has, value in found if labels.items() <= has.items())


def samples(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


@pytest.fixture(scope="module")
def box(
    ready_database: str, model_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    """Its search, embedding, cache and rate limit have been used."""
    folder = tmp_path_factory.mktemp("box")
    valkey = Valkey()
    valkey.start()
    ports = {"APP_PORT": str(free_port()), "METRICS_PORT": str(free_port())}
    app = environment(ready_database, model_environment, folder, REDIS_URL=valkey.url, RATE_LIMIT="2", **ports)
    write_keys(folder, KEYS)
    entries = json.loads((folder / "keys.json").read_text(encoding="utf-8"))
    entries[0]["rate_limit"] = 0
    (folder / "keys.json").write_text(json.dumps(entries), encoding="utf-8")
    worker = app | {"METRICS_PORT": str(free_port()), "WORKER_MAX_ATTEMPTS": "1"}
    process = Process("app", environment=app, output=folder / "app")
    try:
        assert run("app.selftest", environment=app).returncode == 0
        yield Box(app, worker, folder, ready_database)
    finally:
        process.end()
        valkey.kill()


@pytest.fixture
def worker(box: Box) -> Iterator[Process]:
    Path(box.worker["WORKER_HEARTBEAT_FILE"]).unlink(missing_ok=True)
    process = Process("worker", environment=box.worker, output=box.folder / "worker")
    try:
        eventually(Path(box.worker["WORKER_HEARTBEAT_FILE"]).exists)
        yield process
    finally:
        process.end()


def test_every_answer_is_counted_by_route_and_status(box: Box) -> None:
    asked: list[tuple[str, str, Any, str | None, str, str]] = [
        ("POST", "/search", {"query": "반품"}, "the-key", "/search", "200"),
        ("POST", "/search", {"query": ""}, "the-key", "/search", "400"),
        ("GET", "/documents/no-such-document", None, "the-key", "/documents/{document_id:path}", "404"),
        ("GET", "/admin/parked", None, "the-key", "/admin/parked", "200"),
        ("POST", "/search", {"query": "x"}, "wrong", "(none)", "401"),
        ("POST", "/documents", {"text": "x"}, "a-search-key", "(none)", "403"),
        ("GET", "/nothing", None, "the-key", "(none)", "404"),
        ("GET", "/health", None, None, "/health", "200"),
    ]
    for method, path, body, key, route, status in asked:
        labels = {"method": method, "route": route, "status": status}
        before = box.value("onebox_requests_total", **labels)
        timed = box.value("onebox_request_seconds_count", method=method, route=route)
        assert box.ask(method, path, body, key)[0] == int(status)
        assert box.value("onebox_requests_total", **labels) == before + 1, labels
        assert box.value("onebox_request_seconds_count", method=method, route=route) == timed + 1


def test_what_clients_invent_makes_no_new_series(box: Box) -> None:
    box.ask("GET", "/documents/first")
    box.ask("GET", "/invented/0")
    before = sum(map(len, samples(fetch(box.app["METRICS_PORT"])).values()))
    for number in range(20):
        box.ask("GET", f"/documents/document-{number}")
        box.ask("GET", f"/invented/{number}", key=f"invented-{number}")
        box.ask("GET", f"/invented/{number}")
    after = sum(map(len, samples(fetch(box.app["METRICS_PORT"])).values()))
    # One more at most: /invented without a good key.
    assert after - before <= 1
    box.ask("PURGE", "/nothing")
    assert box.value("onebox_requests_total", method="(other)") >= 1
    assert box.value("onebox_requests_total", method="PURGE") == 0


def test_stages_and_reranking_of_searches_are_counted(box: Box) -> None:
    runs = {"ran": "no", "reason": "off"}
    before = box.value("onebox_reranks_total", **runs)
    searches = box.value("onebox_search_stage_seconds_count", stage="total")
    spent = box.value("onebox_search_stage_seconds_sum", stage="total")
    status, answer = box.ask("POST", "/search", {"query": "환불", "rerank": False})
    assert status == 200
    assert box.value("onebox_reranks_total", **runs) == before + 1
    assert box.value("onebox_search_stage_seconds_count", stage="total") == searches + 1
    total = answer["timings_ms"]["total"] / 1000
    assert box.value("onebox_search_stage_seconds_sum", stage="total") == pytest.approx(spent + total)
    told = samples(fetch(box.app["METRICS_PORT"]))["onebox_search_stage_seconds_sum"]
    assert {labels["stage"] for labels, _ in told} == set(answer["timings_ms"])


def test_a_text_asked_for_again_is_a_hit_of_the_cache(box: Box) -> None:
    hits, misses = (box.value("onebox_cache_lookups_total", result=result) for result in ("hit", "miss"))
    for _ in range(3):
        assert box.ask("POST", "/v1/embeddings", {"input": "교환은 언제까지 되나요?"})[0] == 200
    assert box.value("onebox_cache_lookups_total", result="miss") == misses + 1
    assert box.value("onebox_cache_lookups_total", result="hit") == hits + 2


def test_who_asks_too_often_is_counted(box: Box) -> None:
    before = box.value("onebox_rate_limited_total", by="key")
    statuses = [box.ask("POST", "/search", {"query": "반품"}, key="a-search-key")[0] for _ in range(4)]
    assert box.value("onebox_rate_limited_total", by="key") - before == statuses.count(429) > 0


def test_lanes_tell_what_waits_and_what_runs(box: Box) -> None:
    texts = [f"상품 {number}: " + TEXT * 40 for number in range(1000)]
    seen = threading.Event()

    def embed() -> None:
        while not seen.is_set():
            assert box.ask("POST", "/v1/embeddings", {"input": texts, "long_texts": "windows"})[0] == 200

    def told() -> list[float]:
        lanes = samples(fetch(box.app["METRICS_PORT"]))
        return [value for name in LANE for labels, value in lanes[name] if labels["lane"] == "bulk"]

    client = threading.Thread(target=embed)
    client.start()
    try:
        eventually(lambda: all(told()))
    finally:
        seen.set()
        client.join()
    assert not any(told())
    assert box.value("onebox_lane_tokens_per_second", lane="bulk") > 0
    assert box.value("onebox_lane_running", lane="query") == 0


def test_what_waits_for_the_index_is_told_with_its_age_until_a_worker_comes(
    box: Box, request: pytest.FixtureRequest
) -> None:
    known = box.value("onebox_documents")
    documents = [{"id": "queued-1", "text": TEXT}, {"id": "queued-2", "text": TEXT * 2}]
    assert box.ask("POST", "/documents", documents)[0] == 202
    assert box.value("onebox_documents") == known + 2
    assert box.value("onebox_items", state="queued") == 2
    eventually(lambda: box.value("onebox_oldest_queued_seconds") > 1)
    request.getfixturevalue("worker")
    eventually(lambda: box.value("onebox_items", state="queued") + box.value("onebox_items", state="running") == 0)
    assert box.value("onebox_oldest_queued_seconds") == 0
    assert box.value("onebox_chunks") > 0
    # The index knows a little sooner than the worker counts.
    eventually(lambda: box.worked("onebox_worker_items_total", outcome="indexed") == 2)
    assert box.worked("onebox_worker_item_seconds_count") == 2
    assert box.worked("onebox_worker_passages_total", vector="computed") > 0
    box.ask("POST", "/documents", {"id": "queued-3", "text": TEXT})
    eventually(lambda: box.worked("onebox_worker_passages_total", vector="known") >= 1)


def test_what_was_given_up_is_told(box: Box, worker: Process) -> None:
    # No vector fits this column any more: whatever is indexed now fails.
    with connect(box.database) as database:
        database.execute("ALTER TABLE generation_1_chunks ADD CONSTRAINT broken CHECK (tokens < 0) NOT VALID")
    try:
        box.ask("POST", "/documents", {"id": "poison", "text": TEXT * 3})
        eventually(lambda: box.value("onebox_items", state="parked") == 1)
        eventually(lambda: box.worked("onebox_worker_items_total", outcome="parked") == 1)
    finally:
        with connect(box.database) as database:
            database.execute("ALTER TABLE generation_1_chunks DROP CONSTRAINT broken")


def test_models_and_memory_are_told_by_both(box: Box, worker: Process) -> None:
    assert box.value("onebox_model_info", kind="embedding", name="tiny-embedding", release="tiny-embedding-1") == 1
    assert box.value("onebox_model_info", kind="reranker", name="tiny-reranker") == 1
    assert box.worked("onebox_model_info", kind="embedding", release="tiny-embedding-1") == 1
    assert box.value("onebox_database_up") == 1
    assert box.value("onebox_degraded") == 0
    for value in (box.value, box.worked):
        assert value("process_resident_memory_bytes") > 1 << 20
        assert value("process_cpu_seconds_total") > 0


def test_without_its_database_an_app_tells_that_and_all_the_rest(box: Box, tmp_path: Path) -> None:
    alone = box.app | {"DATABASE_HOST": str(tmp_path), "APP_PORT": str(free_port()), "METRICS_PORT": str(free_port())}
    app = Process("app", environment=alone, output=tmp_path / "output")
    try:
        lonely = Box(alone, {}, tmp_path, "")
        eventually(lambda: _listens(alone["METRICS_PORT"]))
        assert lonely.has("onebox_database_up") and lonely.value("onebox_database_up") == 0
        assert lonely.has("onebox_lane_tokens") and not lonely.has("onebox_items")
    finally:
        app.end()


def test_metrics_are_not_on_the_port_that_is_published(box: Box) -> None:
    assert box.ask("GET", "/metrics", key=None)[0] == 401
    assert box.ask("GET", "/metrics", key="a-search-key")[0] == 403
    assert box.ask("GET", "/metrics")[0] == 404


@pytest.mark.parametrize("module", ["app", "worker"])
def test_a_port_that_is_taken_stops_it_with_one_sentence(box: Box, module: str) -> None:
    done = run(module, environment=box.app | {"APP_PORT": str(free_port())})
    assert done.returncode == 1
    assert f"METRICS_PORT is {box.app['METRICS_PORT']}, where nothing can listen" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# The dashboard


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def names(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:onebox|process)_[a-z_]+", expression))


def test_the_dashboard_shows_what_there_is_and_nothing_else(box: Box, worker: Process) -> None:
    box.ask("POST", "/search", {"query": "반품"})
    box.ask("POST", "/documents", {"id": "shown", "text": TEXT})
    eventually(lambda: box.worked("onebox_worker_items_total", outcome="indexed") >= 1)
    told: dict[str, set[str]] = {}
    for port in (box.app["METRICS_PORT"], box.worker["METRICS_PORT"]):
        for name, found in samples(fetch(port)).items():
            told.setdefault(name, set()).update(*(labels for labels, _ in found))
    if "onebox_memory_limit_bytes" not in told:  # a machine whose cgroups have no limit
        told["onebox_memory_limit_bytes"] = set()
    for expression in expressions():
        assert names(expression) <= told.keys(), expression
        selected = re.findall(r'(\w+)[=!]~?"', expression)
        grouped = ",".join(re.findall(r"by \(([^)]*)\)", expression)).replace(" ", "").split(",")
        known = {"", "box"}.union(*(told[name] for name in names(expression)))
        assert {*selected, *grouped} <= known, expression
    shown = set().union(*map(names, expressions()))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told if name.startswith("onebox_")}
    assert families == {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown if name.startswith("onebox_")}


def _listens(port: str) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(port))) == 0
