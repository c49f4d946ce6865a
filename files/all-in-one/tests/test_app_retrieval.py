"""What a search finds while the index changes under it: its parts are read at different moments."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from box import HASHES, Box, running_app, running_worker

from app.reranking import Reranking
from app.retrieval import Fusion, Request, Retrieval
from app.searching import Search
from app.settings import Settings
from store import search as stored

DOCUMENTS = [
    {"id": "kept", "text": "The blue lamp stands in the hall."},
    {"id": "edited", "text": "The green lamp stands in the kitchen."},
    {"id": "first", "text": "A lamp for the desk."},
    {"id": "second", "text": "A lamp for the bed."},
    {"id": "third", "text": "A lamp for the garden."},
]
QUESTION = "lamp"


@pytest.fixture(scope="module")
def box(
    ready_database: str, model_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    with (
        running_app(ready_database, Settings(keys=HASHES)) as box,
        running_worker(ready_database, tmp_path_factory.mktemp("worker")),
    ):
        yield box


@pytest.fixture
def meanwhile(box: Box, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Does one thing after the other, each when some of the nearest chunks are there and no passage is read yet."""
    box.ingest(*DOCUMENTS)

    def arrange(*actions: Callable[[], object]) -> list[Any]:
        left, as_it_is = list(actions), stored.nearest_first

        def act_first(*found: Any) -> Any:
            if left:
                left.pop(0)()
            return as_it_is(*found)

        monkeypatch.setattr(stored, "nearest_first", act_first)
        return left

    return arrange


def found(box: Box) -> dict[str, str]:
    """{document: passage}, best first."""
    answer = box.post("/search", query=QUESTION, top_k=len(DOCUMENTS), rerank="off")
    assert answer.status_code == 200, answer.text
    return {result["document_id"]: result["text"] for result in answer.json()["results"]}


def test_a_document_that_is_edited_meanwhile_is_found_as_it_is_now(
    box: Box, meanwhile: Callable[..., list[Any]]
) -> None:
    edited = {"id": "edited", "text": "The red lamp stands in the kitchen, by the door."}
    left = meanwhile(lambda: box.ingest(edited))
    results = found(box)
    assert left == []
    assert results["edited"] == edited["text"] and len(results) == len(DOCUMENTS)


def test_a_document_that_is_deleted_meanwhile_is_not_found_and_all_others_are(
    box: Box, meanwhile: Callable[..., list[Any]]
) -> None:
    left = meanwhile(lambda: box.client.delete("/documents/edited"))
    results = found(box)
    assert left == []
    assert set(results) == {document["id"] for document in DOCUMENTS} - {"edited"}


@pytest.mark.parametrize("fusion", ["hybrid", "vectors", "words"])
def test_a_search_that_has_company_finds_the_same(
    box: Box, meanwhile: Callable[..., list[Any]], fusion: Fusion
) -> None:
    def results(cores: int) -> list[Any]:
        services = box.services
        retrieval = Retrieval(services.pool, services.vectors, judged=20, cores=cores)
        with closing(Search(retrieval, Reranking(top_k=20, deadline=2.0))) as search:
            return [
                search.run(services.models.get, Request(query, 3, "off", fusion))["results"]
                for query in ("lamp", "the red lamp", "정원", "E-204", "?")
            ]

    one, two = results(1), results(2)
    assert one == two and one[0]
