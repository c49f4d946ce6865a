"""What a search finds that is read over several connections, while the index changes under it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, cast

import numpy as np
import pytest
from box import HASHES, Box, running_app, running_worker
from psycopg import sql
from psycopg.errors import DiskFull

from app import filtering
from app.reranking import Reranking
from app.retrieval import Request, Retrieval, _Words
from app.searching import Search
from app.settings import Settings
from app.stages import Stages
from store import generations
from store import search as stored
from store.connection import Database, connect
from store.errors import NoGenerationError
from store.generations import Generation

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "kept", "text": "The blue lamp stands in the hall."},
    {"id": "edited", "text": "The green lamp stands in the kitchen.", "metadata": {"room": "kitchen"}},
    {"id": "deleted", "text": "정원에 두는 등입니다. 코드는 L-900입니다.", "metadata": {"room": "garden"}},
]


@pytest.fixture(scope="module")
def box(
    ready_database: str, model_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    with (
        running_app(ready_database, Settings(keys=HASHES)) as box,
        running_worker(ready_database, tmp_path_factory.mktemp("worker")),
    ):
        yield box


@pytest.fixture(autouse=True)
def documents(box: Box) -> None:
    box.ingest(*DOCUMENTS)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], list[str]]:
    """Does something when a search has fixed the moment that it sees and nothing is read yet; what was shared then."""

    def arrange(action: Callable[[], object]) -> list[str]:
        shared, as_it_is = [], stored.share

        def share_and_act(database: Database) -> str:
            shared.append(as_it_is(database))
            action()
            return shared[-1]

        monkeypatch.setattr(stored, "share", share_and_act)
        return shared

    return arrange


def results(box: Box, query: str, *, cores: int = 2, **options: Any) -> list[dict[str, Any]]:
    services = box.services
    with closing(Retrieval(services.pool, services.vectors, cores=cores)) as retrieval:
        search = Search(retrieval, Reranking(top_k=20, deadline=2.0))
        found: list[dict[str, Any]] = search.run(
            services.models.get, Request(query, options.pop("top_k", 3), "off", "hybrid", **options)
        )["results"]
    return found


def test_a_search_sees_one_moment_whatever_is_changed_meanwhile(
    box: Box, meanwhile: Callable[[Callable[[], object]], list[str]]
) -> None:
    before = results(box, "L-900 lamp")
    edited = DOCUMENTS[1] | {"text": "부엌에 있는 빨간 등입니다.", "metadata": {"room": "hall"}}

    def change() -> None:
        box.ingest(edited)
        box.client.delete("/documents/deleted")

    shared = meanwhile(change)
    assert results(box, "L-900 lamp") == before
    assert len(shared) == 1 and len(before) == 3
    box.client.delete("/documents/kept")
    assert [result["text"] for result in results(box, "L-900 lamp")] == [edited["text"]]


def test_a_filter_holds_for_what_is_shown(box: Box, meanwhile: Callable[[Callable[[], object]], list[str]]) -> None:
    shared = meanwhile(lambda: box.ingest(DOCUMENTS[1] | {"metadata": {"room": "hall"}}))
    (found,) = results(box, "lamp", filters=filtering.parse({"room": "kitchen"}))
    assert shared and found["metadata"] == {"room": "kitchen"}
    assert results(box, "lamp", filters=filtering.parse({"room": "kitchen"})) == []


@pytest.mark.parametrize("query", ["lamp", "the green lamp in the kitchen", "정원", "L-900", "?"])
def test_a_search_that_has_company_finds_the_same(box: Box, query: str) -> None:
    alone = results(box, query)
    assert alone == results(box, query, cores=1) and len(alone) == 3


def test_a_chunk_far_from_the_question_that_has_its_word_is_compared_all_the_same(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = [{"id": f"near-{number}", "text": f"The lamp in the hall, number {number}."} for number in range(5)]
    box.ingest(*near, {"id": "far", "text": "Shipping is free above fifty dollars, see Q-77."})
    query = "the lamp in the hall Q-77"
    (expected,) = results(box, query, top_k=1)
    assert expected["document_id"] == "far"
    near_ones: list[str] = []
    as_it_is = stored.nearest

    def nearest(*given: Any, **options: Any) -> dict[int, stored.Candidate]:
        found = as_it_is(*given, **options)
        near_ones.extend(candidate.document_id for candidate in found.values())
        return found

    monkeypatch.setattr(stored, "nearest", nearest)
    monkeypatch.setattr("app.retrieval.CANDIDATES", 1)
    for cores in (1, 2):
        (found,) = results(box, query, cores=cores, top_k=1)
        # The database adds in another order.
        assert found["scores"]["vector"] == pytest.approx(expected["scores"]["vector"], abs=2e-6)
    assert near_ones and "far" not in near_ones
    for document in [*near, {"id": "far"}]:
        box.client.delete(f"/documents/{document['id']}")


def test_chunks_of_one_text_are_equally_near() -> None:
    chance = np.random.default_rng(0)
    row, vector = chance.normal(size=(2, 384)).astype(np.float32)
    found = {number: stored.Candidate(str(number), latin=True) for number in range(99)}
    words = _Words(found, np.tile(row, (99, 1)), 0.0, cast("Generation", None))
    assert len({candidate.similarity for candidate in words.compared(vector, {}).values()}) == 1


def test_without_room_for_a_shared_moment_a_search_finds_the_same(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = results(box, "lamp")

    def refuse(_: Database) -> str:
        raise DiskFull("could not write to file: No space left on device")

    monkeypatch.setattr(stored, "share", refuse)
    assert results(box, "lamp") == expected


def test_what_goes_wrong_with_the_words_is_what_the_search_says(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise NoGenerationError("gone while its words were read")

    monkeypatch.setattr(stored, "frequencies", fail)
    loaded, request = box.services.models.get(), Request("lamp", 3, "off", "hybrid")
    with (
        closing(Retrieval(box.services.pool, box.services.vectors, cores=2)) as retrieval,
        pytest.raises(NoGenerationError, match="gone while"),
    ):
        retrieval.run(loaded, request, Stages(), documents=3)


def test_who_waits_for_a_table_does_not_make_a_search_wait_for_itself(
    box: Box, ready_database: str, meanwhile: Callable[[Callable[[], object]], list[str]]
) -> None:
    expected = results(box, "lamp")
    threads = []

    def take() -> None:
        with connect(ready_database) as database, database.transaction():
            chunks = generations.serving(database).tables["chunks"]
            database.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(chunks))

    def let_one_wait() -> None:
        threads.append(threading.Thread(target=take))
        threads[0].start()
        with connect(ready_database) as database:
            while not database.execute("SELECT FROM pg_locks WHERE NOT granted").rowcount:
                time.sleep(0.01)

    shared = meanwhile(let_one_wait)
    assert results(box, "lamp") == expected
    threads[0].join(timeout=10)
    assert shared and not threads[0].is_alive()
