"""What the app does when something it stands on goes away, and when it comes back."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx2
import postgres_server
import psycopg
import pytest
import redis
import waiting
from box import running_app, running_worker
from served import served
from starlette.testclient import TestClient
from valkey_server import Valkey
from waiting import locked

from app import cache, guard, readiness, services
from app.gauges import Gauges
from app.main import create_app
from app.services import make
from app.settings import Settings
from store import connection, generations, switching
from store.connection import connect
from store.migrate import migrate

eventually = partial(waiting.eventually, seconds=30)
DOCUMENTS = (
    {"id": "returns", "text": "반품은 상품을 받은 날부터 7일 안에 할 수 있습니다."},
    {"id": "shipping", "text": "Shipping is free for orders above fifty dollars."},
)


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    server.start()
    yield server
    server.kill()


def test_search_stays_right_when_the_cache_goes_and_comes_back(
    ready_database: str,
    model_environment: dict[str, str],
    valkey: Valkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache, "PAUSE", 0.1)
    settings = Settings(redis_url=valkey.url)
    with running_app(ready_database, settings) as box, running_worker(ready_database, tmp_path):
        box.ingest(*DOCUMENTS)
        computed = box.post("/search", query="반품은 며칠 안에").json()["results"]
        assert redis.Redis.from_url(valkey.url).dbsize() == 1
        assert box.post("/search", query="반품은 며칠 안에").json()["results"] == computed

        valkey.kill()
        assert box.post("/search", query="반품은 며칠 안에").json()["results"] == computed
        health = box.client.get("/health").json()
        assert health["status"] == "degraded"
        assert "Redis does not answer" in health["degraded"][0]
        assert box.client.get("/readyz").status_code == 200

        valkey.start()
        eventually(lambda: box.client.get("/health").json()["status"] == "ok")
        assert box.post("/search", query="반품은 며칠 안에").json()["results"] == computed


def test_a_cached_vector_of_another_length_is_not_used(
    ready_database: str, model_environment: dict[str, str], valkey: Valkey, tmp_path: Path
) -> None:
    with running_app(ready_database, Settings(redis_url=valkey.url)) as box, running_worker(ready_database, tmp_path):
        box.ingest(*DOCUMENTS)
        expected = box.found("반품은 며칠")
        client = redis.Redis.from_url(valkey.url)
        for key in client.scan_iter():
            client.set(key, b"\x00" * 12)
        assert box.found("반품은 며칠") == expected


@contextmanager
def stopped(server: postgres_server.Server) -> Iterator[None]:
    server.stop()
    yield
    server.start()


@pytest.mark.parametrize("gone", [stopped, postgres_server.Server.paused])
@pytest.mark.usefixtures("model_environment")
def test_without_the_database_it_says_so_and_recovers(
    gone: Callable[[postgres_server.Server], AbstractContextManager[None]],
    own_postgres: postgres_server.Server,
    index: generations.Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness, "KEEP", 0.0)
    database = own_postgres.conninfo("postgres")
    migrate(database)
    with connect(database) as connection:
        switching.want(connection, index)
    with running_app(database, Settings()) as box, running_worker(database, tmp_path):
        box.ingest(*DOCUMENTS)
        assert box.client.get("/readyz").status_code == 200

        with gone(own_postgres):
            answer = box.client.get("/readyz")
            assert (answer.status_code, answer.json()["error"]["message"]) == (503, "The database does not answer.")
            assert box.post("/search", query="반품").json()["error"]["code"] == "database_unavailable"
            assert box.client.post("/documents", json=DOCUMENTS[0]).status_code == 503
            assert box.client.get("/health").json()["status"] == "unavailable"
            assert box.client.get("/livez").status_code == 200
            assert box.post("/v1/embeddings", input="반품").status_code == 200

        eventually(lambda: box.client.get("/readyz").status_code == 200)
        assert box.found("반품은 며칠")[0] == "returns"
        job = box.ingest({"id": "later", "text": "나중에 온 글"})
        assert job["status"] == "done"


def test_a_statement_that_is_never_answered_ends(
    own_postgres: postgres_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT", 1.0)
    with connect(own_postgres.conninfo("postgres")) as database:
        assert database.execute("SELECT pg_sleep(0.5)").rowcount == 1
        with own_postgres.paused(), pytest.raises(psycopg.OperationalError, match="did not answer within 1 s"):
            database.execute("SELECT 1")
        assert database.closed


def test_a_full_disk_is_said_and_nothing_of_the_request_is_stored(
    ready_database: str, model_environment: dict[str, str], tmp_path: Path
) -> None:
    given = [{"id": f"too-much-{number}", "text": "글"} for number in range(3)]
    with connect(ready_database) as database, running_app(ready_database, Settings()) as box:
        # The documents are in by then, and must be out again.
        database.execute(
            """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file'; END $$;
               CREATE TRIGGER refuse BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION refuse()"""
        )
        answer = box.client.post("/documents", json=given)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "disk_full")
        assert "no room left" in answer.json()["error"]["message"] and int(answer.headers["retry-after"]) > 0
        assert box.client.get("/documents/too-much-0").status_code == 404
        database.execute("DROP TRIGGER refuse ON jobs")
        with running_worker(ready_database, tmp_path):
            assert box.ingest(*given)["status"] == "done"


def test_a_database_that_others_keep_busy_is_overload_and_no_outage(
    ready_database: str, model_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "KEEP", 0.0)
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    monkeypatch.setattr(services, "DATABASE_CONNECTIONS", 1)
    done = threading.Event()
    with running_app(ready_database, Settings()) as box, ThreadPoolExecutor(8) as others:
        assert box.client.get("/readyz").status_code == 200

        def take_turns() -> None:
            while not done.is_set():
                with box.services.pool.connection(timeout=60) as database:
                    database.execute("SELECT pg_sleep(0.2)")

        for _ in range(8):
            others.submit(take_turns)
        try:
            eventually(lambda: box.services.pool.get_stats()["requests_waiting"] == 7)
            answer = box.post("/search", query="반품", rerank="off")
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
            assert int(answer.headers["retry-after"]) > 0
            assert box.client.get("/readyz").status_code == 200
            assert box.client.get("/health").json()["status"] == "ok"
            up = [metric for metric in Gauges(box.services).collect() if metric.name == "onebox_database_up"]
            assert up[0].samples[0].value == 1
        finally:
            done.set()


def test_requests_above_what_gets_a_thread_are_told_to_come_back(
    ready_database: str, model_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests wait for a locked table; the third is refused at once, and probes are answered all the same."""
    monkeypatch.setattr(guard, "REQUESTS", 2)
    with served(ready_database, Settings(), None) as box, ThreadPoolExecutor(2) as clients:

        def get(path: str) -> httpx2.Response:
            return httpx2.get(box.url + path, timeout=60)

        with connect(ready_database) as database, database.transaction():
            database.execute("LOCK TABLE documents IN ACCESS EXCLUSIVE MODE")
            waiting = [clients.submit(get, "/documents") for _ in range(2)]
            with connect(ready_database) as watching:
                eventually(lambda: locked(watching) == 2)
            answer = get("/documents")
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
            assert answer.headers["retry-after"] == "1"
            assert get("/livez").status_code == get("/readyz").status_code == 200
        assert [request.result().status_code for request in waiting] == [200, 200]
        assert get("/documents").status_code == 200


def test_those_who_ask_at_once_share_one_check_of_readiness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database a check takes seconds: one after the other they would take every thread of the app."""
    askers, checks, answers = 8, [], []
    everyone = threading.Barrier(askers)

    class Asked:
        """Models that are loaded, once every asker has looked."""

        @property
        def loaded(self) -> object:
            everyone.wait(30)
            return self

    def check(_: object, loaded: object) -> str:
        checks.append(loaded)
        return "The database does not answer."

    monkeypatch.setattr(readiness.Readiness, "_check", check)
    asked = readiness.Readiness(cast(Any, None), cast(Any, Asked()))
    threads = [threading.Thread(target=lambda: answers.append(asked.why_not())) for _ in range(askers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["The database does not answer."] * askers
    assert len(checks) == 1


def test_before_the_migration_it_waits_and_then_serves(
    empty_database: str, index: generations.Index, model_environment: dict[str, str]
) -> None:
    services = make(Settings(), empty_database)
    with TestClient(create_app(services)) as client:
        eventually(lambda: "store migrate" in services.models.why)
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "run `python -m store migrate` first" in answer.json()["error"]["message"]
        assert client.post("/search", json={"query": "반품"}).status_code == 503
        assert client.get("/health").json()["models"] is None
        migrate(empty_database)
        with connect(empty_database) as connection:
            switching.want(connection, index)
        eventually(lambda: client.get("/readyz").status_code == 200)


def test_a_reranker_out_of_time_leaves_the_first_order(
    ready_database: str, model_environment: dict[str, str], tmp_path: Path
) -> None:
    settings = Settings(rerank_deadline=0.0)
    with running_app(ready_database, settings) as box, running_worker(ready_database, tmp_path):
        box.ingest(*DOCUMENTS)
        answer = box.post("/search", query="반품은 며칠").json()
        assert answer["rerank"]["ran"] is False
        assert "deadline" in answer["rerank"]["why"]
        first = [result["document_id"] for result in answer["results"]]
        assert first == box.found("반품은 며칠", rerank=False)


def test_a_generation_that_was_replaced_is_followed_without_a_failed_request(
    database_url: str, index: generations.Index, releases: Path, model_environment: dict[str, str]
) -> None:
    other = generations.read_wanted(
        releases / "releases" / "tiny-embedding-2", chunker=index.chunker, analyser=index.analyser
    )
    with connect(database_url) as connection:
        switching.want(connection, index)
        with running_app(database_url, Settings()) as box:
            assert box.post("/search", query="반품").json()["models"]["embedding"] == "tiny-embedding-1"
            # Without documents nothing has to be built: the generation is replaced, its tables are gone.
            switching.want(connection, other)
            answer = box.post("/search", query="반품")
            assert (answer.status_code, answer.json()["models"]["embedding"]) == (200, "tiny-embedding-2")
            assert box.client.get("/readyz").status_code == 200
