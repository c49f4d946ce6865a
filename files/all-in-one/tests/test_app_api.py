"""The HTTP interface as a client meets it, over real models and a real database."""

import base64
import io
import json
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import httpx2
import numpy as np
import pytest
from box import HASHES, KEYS, Box, running_app, running_worker

from app import log
from app.reranking import Reranking
from app.retrieval import Fusion, Request, Retrieval
from app.searching import Search
from app.settings import Margin, Settings
from pipeline.errors import OverloadedError
from store import generations
from store import search as stored
from store.connection import connect

RETURNS = {"id": "returns", "title": "반품 정책", "text": "반품은 상품을 받은 날부터 7일 안에 할 수 있습니다."}
ERROR = {"id": "errors/e204", "title": "오류", "text": "오류 코드 E-204가 나오면 앱을 다시 시작해 주세요."}
SHIPPING = {"id": "shipping", "title": "Shipping", "text": "Shipping is free for orders above fifty dollars."}


@pytest.fixture(scope="module")
def box(
    ready_database: str, model_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    settings = Settings(
        keys=HASHES, deployment="d1", max_body=100_000, max_inputs=8, max_documents=4, max_text=5000, max_candidates=3
    )
    with (
        running_app(ready_database, settings) as box,
        running_worker(ready_database, tmp_path_factory.mktemp("worker")),
    ):
        box.ingest(RETURNS, ERROR, SHIPPING)
        yield box


def error_of(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """The error, which always has the same four fields."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# Keys and probes


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/"])
def test_probes_and_the_page_need_no_key(box: Box, path: str) -> None:
    assert box.client.get(path, headers={"authorization": ""}).status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer wrong", "Bearer ", "Basic the-key", "the-key", "Bearer the-key2"])
def test_without_a_right_key_nothing_is_answered(box: Box, header: str) -> None:
    answer = box.client.post("/search", json={"query": "반품"}, headers={"authorization": header})
    assert error_of(answer, 401)["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_during_a_rotation_both_keys_are_good(box: Box) -> None:
    answer = box.client.post("/search", json={"query": "반품"}, headers={"authorization": f"Bearer {KEYS[1]}"})
    assert answer.status_code == 200


def test_health_shows_the_status_only_without_the_key(box: Box) -> None:
    assert box.client.get("/health", headers={"authorization": ""}).json() == {"status": "ok"}


def test_health_tells_what_serves(box: Box) -> None:
    health = box.client.get("/health").json()
    assert (health["status"], health["degraded"], health["deployment"]) == ("ok", [], "d1")
    assert health["models"]["embedding"]["name"] == "tiny-embedding"
    assert health["models"]["embedding"]["release"] == health["generation"]["release"] == "tiny-embedding-1"
    reranker = health["models"]["reranker"]
    assert (reranker["name"], reranker["release"]) == ("tiny-reranker", "tiny-reranker-1")
    assert reranker["recipe"]["name"] == "float" and reranker["recipe"]["reason"] == "a test's model"
    assert reranker["gate"] == {"passed": True}
    assert reranker["speed"] == {"float_ms": 1.0} and reranker["fusion"] == {"fused": 0, "why": "no attention"}
    assert reranker["proven_here"] is True
    assert health["documents"] == health["chunks"] >= 3
    assert health["queue"]["parked"] == 0
    assert health["inference"]["threads"] >= 1
    assert health["inference"]["query"]["jobs"] == 0 and health["inference"]["bulk"]["tokens"] == 0


# Embeddings


def test_vectors_come_in_the_order_of_their_texts(box: Box) -> None:
    both = box.post("/v1/embeddings", input=["반품", "shipping"], model="tiny-embedding").json()
    alone = box.post("/v1/embeddings", input="shipping").json()
    assert [entry["index"] for entry in both["data"]] == [0, 1]
    assert both["data"][1]["embedding"] == alone["data"][0]["embedding"]
    assert both["model"] == "tiny-embedding"
    assert both["usage"]["total_tokens"] > 0


def test_base64_holds_the_same_floats(box: Box) -> None:
    floats = box.post("/v1/embeddings", input="반품").json()["data"][0]["embedding"]
    encoded = box.post("/v1/embeddings", input="반품", encoding_format="base64").json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(encoded), dtype="<f4").tolist() == floats


def test_a_models_alias_says_the_role(box: Box) -> None:
    by_field = box.post("/v1/embeddings", input="반품", input_type="passage").json()
    by_alias = box.post("/v1/embeddings", input="반품", model="tiny-embedding:passage").json()
    as_query = box.post("/v1/embeddings", input="반품", model="tiny-embedding:query").json()
    assert by_alias["data"] == by_field["data"] != as_query["data"]


def test_a_text_that_was_cut_says_so(box: Box) -> None:
    data = box.post("/v1/embeddings", input=["반품 " * 1000, "반품"]).json()["data"]
    assert data[0]["truncated"] is True
    assert "truncated" not in data[1]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": []}, 400, "input"),
        ({"input": ""}, 400, "input"),
        ({"input": ["good", "  "]}, 400, "input.1"),
        ({"input": [[1, 2], [3]]}, 400, "input"),
        ({"input": 7}, 400, "input"),
        ({}, 400, "input"),
        ({"input": ["x"] * 9}, 413, "input"),
        ({"input": "x" * 5001}, 413, "input"),
        ({"input": "x", "dimensions": 8}, 400, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, 400, "encoding_format"),
        ({"input": "x", "input_type": "document?"}, 400, "input_type"),
        ({"input": "x", "model": "gpt-4"}, 404, "model"),
    ],
)
def test_a_wrong_embedding_request_names_the_field(box: Box, body: dict[str, Any], status: int, param: str) -> None:
    assert error_of(box.client.post("/v1/embeddings", json=body), status)["param"] == param


# Reranking


def test_the_best_document_comes_first(box: Box) -> None:
    documents = ["Shipping is free for orders", {"text": "반품은 7일 안에 할 수 있습니다"}]
    answer = box.post("/v1/rerank", query="반품은 7일 안에", documents=documents, return_documents=True).json()
    assert [result["index"] for result in answer["results"]] == [1, 0]
    assert answer["results"][0]["document"] == documents[1]
    assert all(0 <= result["relevance_score"] <= 1 for result in answer["results"])


def test_more_documents_than_the_limit_are_refused_with_it(box: Box) -> None:
    error = error_of(box.post("/v1/rerank", query="x", documents=["x"] * 4), 413)
    assert error["message"] == "documents has 4 entries, the limit is 3."


def test_top_n_keeps_the_best(box: Box) -> None:
    answer = box.post("/v1/rerank", query="반품", documents=["a", "b", "반품"], top_n=1).json()
    assert [result["index"] for result in answer["results"]] == [2]
    assert "document" not in answer["results"][0]


@pytest.mark.parametrize("body", [{"query": "x", "documents": []}, {"query": " ", "documents": ["x"]}, {"query": "x"}])
def test_a_wrong_rerank_request_is_explained(box: Box, body: dict[str, Any]) -> None:
    assert error_of(box.client.post("/v1/rerank", json=body), 400)["message"]


# Documents


def test_a_document_is_found_changed_and_deleted(box: Box) -> None:
    job = box.ingest({"id": "새/문서 1", "text": "자전거 대여는 2층에서 합니다.", "metadata": {"층": 2}, "source": "s"})
    assert (job["status"], job["documents"], job["done"], job["unchanged"]) == ("done", 1, 1, 0)
    result = box.post("/search", query="자전거 대여").json()["results"][0]
    assert (result["document_id"], result["metadata"], result["source"]) == ("새/문서 1", {"층": 2}, "s")
    box.ingest({"id": "새/문서 1", "text": "자전거 대여는 5층에서 합니다."})
    assert "5층" in box.client.get("/documents/새/문서 1").json()["text"]
    assert "5층" in box.post("/search", query="자전거 대여").json()["results"][0]["text"]
    assert box.client.delete("/documents/새/문서 1").json() == {"id": "새/문서 1", "deleted": True}
    assert error_of(box.client.get("/documents/새/문서 1"), 404)["code"] == "document_not_found"
    assert "새/문서 1" not in box.found("자전거 대여")


def test_the_same_document_twice_is_one_document(box: Box) -> None:
    before = box.client.get("/health").json()["documents"]
    job = box.ingest(RETURNS)
    assert job["unchanged"] == 1
    assert box.client.get("/health").json()["documents"] == before


def test_korean_in_single_letters_is_the_same_as_composed_korean(box: Box) -> None:
    letters = unicodedata.normalize("NFD", RETURNS["text"])
    box.ingest({"id": "letters", "text": RETURNS["text"]})
    assert box.ingest({"id": "letters", "text": letters})["unchanged"] == 1
    composed, spelled = (
        box.post("/search", query=query).json()["results"] for query in ("반품", unicodedata.normalize("NFD", "반품"))
    )
    assert composed == spelled
    box.client.delete("/documents/letters")


def test_a_document_without_an_id_gets_the_same_one_again(box: Box) -> None:
    first = box.client.post("/documents", json={"text": "이름 없는 글"}).json()
    second = box.client.post("/documents", json={"text": "이름 없는 글"}).json()
    assert first["documents"] == second["documents"]
    box.finished(second["job"])
    assert box.client.delete(f"/documents/{first['documents'][0]}").status_code == 200


def test_a_long_document_is_found_by_its_end(box: Box) -> None:
    text = "별 내용이 없는 문장입니다. " * 150 + "분실물 보관소는 지하 주차장 옆에 있습니다."
    box.ingest({"id": "long", "text": text})
    result = box.post("/search", query="분실물 보관소").json()["results"][0]
    assert result["document_id"] == "long"
    assert text[result["start"] : result["end"]] == result["text"]
    assert "분실물" in result["text"]
    box.client.delete("/documents/long")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ([], 400, "documents"),
        ([{"text": "x"}] * 5, 413, "documents"),
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], 400, "1.id"),
        ([{"id": "a", "text": "  "}], 400, "0.text"),
        ([{"id": "", "text": "x"}], 400, "0.id"),
        ([{"id": "i" * 600, "text": "x"}], 413, "0.id"),
        ({"id": "a", "text": "nul \x00"}, 400, "0.text"),
        ({"id": "a", "text": "x", "metadata": {"deep": ["nul \x00"]}}, 400, "0.metadata"),
        ({"id": "a", "text": "x" * 5001}, 413, "0.text"),
    ],
)
def test_a_document_that_cannot_be_kept_is_refused(box: Box, body: Any, status: int, param: str) -> None:
    assert error_of(box.client.post("/documents", json=body), status)["param"] == param


@pytest.mark.parametrize("body", [{"id": "a"}, {"text": 7}, "text", 7, None, [{"id": "a"}]])
def test_a_document_of_the_wrong_shape_is_refused(box: Box, body: Any) -> None:
    assert error_of(box.client.post("/documents", json=body), 400)["message"]


def test_half_a_surrogate_pair_is_refused(box: Box) -> None:
    answer = box.client.post(
        "/documents", content=b'{"id": "a", "text": "\\ud800"}', headers={"content-type": "application/json"}
    )
    assert error_of(answer, 400)


def send_lines(box: Box, *lines: bytes | dict[str, Any]) -> httpx2.Response:
    body = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return box.client.post("/documents", content=body, headers={"content-type": "application/x-ndjson; charset=utf-8"})


def test_a_stream_keeps_its_good_lines_and_says_what_is_wrong_with_the_others(box: Box) -> None:
    answer = send_lines(
        box, {"id": "line-1", "text": "첫 줄"}, b"{broken", b"", {"id": "x"}, {"text": "둘째 줄", "id": "line-2"}
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["documents"] == ["line-1", "line-2"]
    job = box.finished(answer.json()["job"])
    assert (job["status"], job["documents"], job["done"]) == ("done", 2, 2)
    assert job["refused"] == answer.json()["refused"]
    assert [refusal["line"] for refusal in job["refused"]] == [2, 4]
    assert job["refused"][1]["reason"].startswith("4.text: ")
    for name in ("line-1", "line-2"):
        assert box.client.delete(f"/documents/{name}").status_code == 200


def test_a_stream_without_a_good_line_leaves_nothing(box: Box) -> None:
    assert error_of(send_lines(box, b"{broken"), 400)["code"] == "invalid_lines"
    long = error_of(send_lines(box, b"", {"id": "long", "text": "x" * 5001}), 413)
    assert (long["param"], long["message"]) == ("2.text", "2.text has 5001 characters, the limit is 5000.")
    assert error_of(send_lines(box, b"\n"), 400)["param"] == "documents"
    twice = send_lines(box, {"id": "twice", "text": "a"}, {"id": "twice", "text": "b"})
    assert "line above" in twice.json()["refused"][0]["reason"]
    box.finished(twice.json()["job"])
    assert box.client.delete("/documents/twice").status_code == 200


def test_documents_are_listed_page_by_page(box: Box) -> None:
    first = box.client.get("/documents", params={"limit": 2}).json()
    second = box.client.get("/documents", params={"limit": 2, "cursor": first["next"]}).json()
    listed = first["documents"] + second["documents"]
    assert [document["id"] for document in listed] == ["errors/e204", "returns", "shipping"]
    assert second["next"] is None
    assert "text" not in listed[0] and listed[0]["state"] == "indexed" and listed[0]["chunks"] == 1
    assert box.client.get("/documents", params={"state": "parked"}).json() == {"documents": [], "next": None}


@pytest.mark.parametrize(
    ("wanted", "param"),
    [({"limit": 0}, "limit"), ({"cursor": "?"}, "cursor"), ({"cursor": "AA"}, "cursor"), ({"state": "lost"}, "state")],
)
def test_a_wrong_page_is_refused(box: Box, wanted: dict[str, Any], param: str) -> None:
    assert error_of(box.client.get("/documents", params=wanted), 400)["param"] == param


def test_some_fields_of_a_document_are_changed(box: Box) -> None:
    box.ingest(
        {"id": "part", "title": "자전거", "text": "자전거는 2층에 있습니다.", "source": "s", "metadata": {"a": 1}}
    )
    answer = box.client.patch("/documents/part", json={"metadata": {"b": 2}, "source": None})
    assert answer.status_code == 202, answer.text
    assert box.finished(answer.json()["job"])["unchanged"] == 1
    box.finished(box.client.patch("/documents/part", json={"text": "자전거는 5층에 있습니다."}).json()["job"])
    document = box.client.get("/documents/part").json()
    assert (document["title"], document["source"], document["metadata"]) == ("자전거", None, {"b": 2})
    assert "5층" in document["text"]
    box.client.delete("/documents/part")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [({}, 400, "body"), ({"text": None}, 400, "text"), ({"text": " "}, 400, "text"), ({"title": 7}, 400, "title"),
     ({"metadata": {"a": "\x00"}}, 400, "metadata"), ({"text": "x" * 5001}, 413, "text")],
)  # fmt: skip
def test_a_wrong_change_is_refused(box: Box, body: dict[str, Any], status: int, param: str) -> None:
    assert error_of(box.client.patch("/documents/returns", json=body), status)["param"] == param
    assert box.client.get("/documents/returns").json()["text"] == RETURNS["text"]


def test_what_is_not_there_cannot_be_changed(box: Box) -> None:
    assert error_of(box.client.patch("/documents/nobody", json={"title": "x"}), 404)["code"] == "document_not_found"


def test_what_was_given_up_is_shown_and_tried_again(box: Box) -> None:
    job = box.ingest({"id": "given-up", "text": "포기한 문서"})
    with box.services.pool.connection() as database:
        database.execute("DELETE FROM indexed WHERE document_id = 'given-up'")
        database.execute(
            "UPDATE items SET state = 'parked', attempts = 3, reason = 'too heavy' WHERE document_id = 'given-up'"
        )
    assert box.client.get(f"/jobs/{job['job']}").json()["failures"] == [{"document": "given-up", "reason": "too heavy"}]
    parked = box.client.get("/admin/parked").json()
    assert [(entry["document"], entry["reason"]) for entry in parked["parked"]] == [("given-up", "too heavy")]
    assert box.post("/admin/requeue", documents=["somebody else"]).json() == {"requeued": 0}
    assert box.post("/admin/requeue").json() == {"requeued": 1}
    assert box.finished(job["job"])["status"] == "done"
    assert box.client.get("/admin/parked").json() == {"parked": [], "next": None}
    box.client.delete("/documents/given-up")


@pytest.mark.parametrize("job", ["no-uuid", "00000000-0000-0000-0000-000000000000"])
def test_an_unknown_job_is_not_found(box: Box, job: str) -> None:
    assert error_of(box.client.get(f"/jobs/{job}"), 404)["code"] == "job_not_found"


# Search


def test_a_code_finds_its_document(box: Box) -> None:
    assert box.found("e204 뜨는데 어떡하죠", rerank=False)[0] == "errors/e204"


def test_the_answer_tells_how_it_came_about(box: Box) -> None:
    answer = box.post("/search", query="반품은 며칠 안에", top_k=2).json()
    assert len(answer["results"]) == 2
    stages = {"embed", "analyse", "vectors", "words", "passages", "rerank", "highlight"}
    timings = answer["timings_ms"]
    assert set(timings) == stages | {"total"}
    assert sum(timings[stage] for stage in stages) == pytest.approx(timings["total"], abs=0.1)
    rerank = answer["rerank"]
    assert set(rerank) == {"mode", "ran", "reason", "why", "candidates", "ms", "lead"}
    assert (rerank["mode"], rerank["ran"], rerank["candidates"], rerank["ms"]) == ("auto", True, 3, timings["rerank"])
    assert rerank["reason"] == "asked"
    assert rerank["why"] == "no margin is set for these models: always, within the deadline"
    assert answer["models"] == {"embedding": "tiny-embedding-1", "reranker": "tiny-reranker-1"}
    assert answer["generation"] == box.client.get("/health").json()["generation"]["id"]
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["results"][0]["scores"]["rerank"] == scores[0]


@pytest.mark.parametrize("off", [False, "off"])
def test_without_reranking_the_first_order_stays(box: Box, off: bool | str) -> None:
    answer = box.post("/search", query="반품", rerank=off).json()
    told = {name: answer["rerank"][name] for name in ("mode", "ran", "reason", "candidates")}
    assert told == {"mode": "off", "ran": False, "reason": "off", "candidates": 0}
    assert all(result["scores"]["rerank"] is None for result in answer["results"])
    fused = [result["scores"]["fused"] for result in answer["results"]]
    assert fused == sorted(fused, reverse=True)
    assert answer["rerank"]["lead"] == pytest.approx(fused[0] - fused[1], abs=2e-6)


@pytest.mark.parametrize(("asked", "mode"), [(True, "auto"), ("auto", "auto"), ("always", "always"), (None, "auto")])
def test_reranking_is_asked_for_by_its_mode(box: Box, asked: bool | str | None, mode: str) -> None:
    rerank = box.post("/search", query="반품", rerank=asked).json()["rerank"]
    assert (rerank["mode"], rerank["ran"]) == (mode, True)


def test_a_shadow_keeps_the_first_order_and_tells_what_the_reranker_would_have_done(box: Box) -> None:
    query = "반품은 며칠 안에"
    first, judged = box.found(query, rerank="off"), box.found(query, rerank="always")
    answer = box.post("/search", query=query, rerank="shadow").json()
    assert [result["document_id"] for result in answer["results"]] == first
    assert answer["rerank"]["ran"] is True
    assert answer["rerank"]["shadow"] == {
        "first_changed": first[0] != judged[0], "changed": first != judged, "order": judged,
    }  # fmt: skip
    for result in answer["results"]:
        assert result["score"] == pytest.approx(result["scores"]["fused"], abs=1e-6)
        assert result["scores"]["rerank"] is not None


def reranked_with(box: Box, margin: Margin, fusion: Fusion = "hybrid") -> dict[str, Any]:
    """What /search would say of reranking with this margin set."""
    services = box.services
    reranking = Reranking(top_k=20, deadline=2.0, margins=[margin])
    with closing(Search(Retrieval(services.pool, services.vectors, cores=2), reranking)) as search:
        report: dict[str, Any] = search.run(services.models.get, Request("e204", 3, "auto", fusion))["rerank"]
    return report


def test_where_the_first_result_leads_by_the_margin_the_reranker_is_not_asked(box: Box) -> None:
    lead = box.post("/search", query="e204", rerank="off").json()["rerank"]["lead"]
    assert lead > 0
    for least, ran in ((lead - 0.01, False), (lead + 0.01, True)):
        rerank = reranked_with(box, Margin("tiny-reranker", "tiny-embedding", least))
        assert (rerank["ran"], rerank["reason"]) == (ran, "asked" if ran else "margin")
        assert f"{lead:.3f}" in rerank["why"] and f"{least:.3f}" in rerank["why"]


@pytest.mark.parametrize(
    ("reranker", "embedding", "fusion", "why"),
    [
        ("another", "tiny-embedding", "hybrid", "no margin is set"),
        ("tiny-reranker", "another", "hybrid", "no margin is set"),
        ("tiny-reranker", "tiny-embedding", "vectors", "margins are for words and vectors together"),
    ],
)
def test_a_margin_for_other_models_or_another_fusion_is_not_used(
    box: Box, reranker: str, embedding: str, fusion: Fusion, why: str
) -> None:
    rerank = reranked_with(box, Margin(reranker, embedding, 0.0), fusion)
    assert rerank["ran"] is True and why in rerank["why"]


def test_auto_judges_as_many_candidates_as_fit_the_deadline(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = box.services.models.get()
    assert loaded.reranker is not None
    for fitting, candidates in ((3, 3), (2, 2), (1, 0)):
        monkeypatch.setattr(loaded.reranker, "fitting", lambda *_, count=fitting: count)
        rerank = box.post("/search", query="반품").json()["rerank"]
        assert (rerank["ran"], rerank["candidates"]) == (candidates > 0, candidates)
        assert ("fit" in rerank["why"]) is (fitting < 3)
        assert box.post("/search", query="반품", rerank="always").json()["rerank"]["candidates"] == 3


def test_highlights_say_where_the_words_of_the_question_stand(box: Box) -> None:
    for fusion in ("hybrid", "vectors"):
        results = box.post("/search", query="e204 오류", fusion=fusion).json()["results"]
        result = next(result for result in results if result["document_id"] == "errors/e204")
        marked = [result["text"][start:end] for start, end in result["highlights"]]
        assert "E-204" in marked
        assert [result["title"][start:end] for start, end in result["title_highlights"]]


def test_highlights_of_what_was_stored_without_places_are_the_same(box: Box, ready_database: str) -> None:
    def marked() -> dict[str, list[list[int]]]:
        results = box.post("/search", query="e204 오류 반품", rerank="off").json()["results"]
        return {result["document_id"]: result["highlights"] for result in results}

    before = marked()
    with connect(ready_database) as database:
        table = f"generation_{generations.serving(database).id}_lexemes"
        database.execute(f"ALTER TABLE {table} RENAME COLUMN places TO kept")
        database.execute(f"ALTER TABLE {table} ADD COLUMN places int4multirange")
        try:
            assert any(before.values()) and marked() == before
        finally:
            database.execute(f"ALTER TABLE {table} DROP COLUMN places")
            database.execute(f"ALTER TABLE {table} RENAME COLUMN kept TO places")


def test_vectors_alone_give_words_no_weight(box: Box) -> None:
    answer = box.post("/search", query="E-204", fusion="vectors", rerank=False).json()
    assert answer["fusion"] == {"mode": "vectors", "word_weight": 0.0}
    assert all(result["scores"]["words"] == 0 for result in answer["results"])


def test_words_alone_find_only_what_has_one_of_them(box: Box) -> None:
    answer = box.post("/search", query="E-204", fusion="words", rerank="off").json()
    assert [result["document_id"] for result in answer["results"]] == ["errors/e204"]
    assert answer["fusion"] == {"mode": "words", "word_weight": 1.0}
    scores = answer["results"][0]["scores"]
    assert (scores["vector"], scores["words"] > 0) == (0.0, True)
    assert box.found("xylophone", fusion="words") == []
    assert len(box.found("반품 반품은", fusion="words")) == 1


@pytest.mark.parametrize("query", ["?!", "😀", "ㅋㅋㅋ", "' OR 1=1 --", "\ufeff가", "the of"])
def test_any_query_gets_an_answer(box: Box, query: str) -> None:
    assert len(box.found(query)) == 3


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"query": ""}, 400), ({"query": "x", "top_k": 0}, 400), ({"query": "x", "top_k": "many"}, 400),
     ({"query": "x", "fusion": "magic"}, 400), ({"query": "x", "rerank": "sometimes"}, 400),
     ({"query": "x", "rerank": 1}, 400), ({"query": "x" * 9000}, 413), ({"query": "nul \x00"}, 400)],
)  # fmt: skip
def test_a_wrong_search_is_explained(box: Box, body: dict[str, Any], status: int) -> None:
    assert error_of(box.client.post("/search", json=body), status)["message"]


# Filters

METADATA = (
    {"언어": "ko", "n": 1, "tags": ["red", "blue"], "day": "2026-01-10"},
    {"언어": "en", "n": 2.5, "tags": [], "day": "2026-02-10T09:00:00Z"},
    {"언어": 'q"\\%(x)s', "n": -3, "day": "no day", "ok": True, "none": None},
)
SHELVES = [
    {"id": f"f{number}", "text": f"선반 안내 {number}", "metadata": metadata}
    for number, metadata in enumerate(METADATA, 1)
]


@pytest.fixture(scope="module")
def shelves(box: Box) -> Iterator[Box]:
    box.ingest(*SHELVES)
    yield box
    for document in SHELVES:
        box.client.delete(f"/documents/{document['id']}")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"언어": "ko"}, {"f1"}),
        ({"언어": ["ko", "en"]}, {"f1", "f2"}),
        ({"언어": 'q"\\%(x)s'}, {"f3"}),
        ({"tags": "blue"}, {"f1"}),
        ({"n": {"gte": 1}}, {"f1", "f2"}),
        ({"n": {"gt": 1, "lte": 2.5}}, {"f2"}),
        ({"n": -3, "ok": True, "none": None}, {"f3"}),
        ({"n": {"lt": 0}, "언어": "ko"}, set()),
        ({"day": {"gte": "2026-01-10"}}, {"f1", "f2"}),
        ({"day": {"gt": "2026-02-10T08:59:00+00:00"}}, {"f2"}),
        ({"day": {"gte": "2026-01-01", "lt": "2026-02-01"}}, {"f1"}),
        ({"nowhere": "x"}, set()),
    ],
)
@pytest.mark.parametrize("measured", [5000, 0])
def test_only_what_the_filter_allows_is_found(
    shelves: Box, wanted: dict[str, Any], found: set[str], measured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "MEASURED_DOCUMENTS", measured)
    assert set(shelves.found("선반 안내", filter=wanted)) == found


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"n": {"above": 1}}, "filter.n"),
        ({"n": {}}, "filter.n"),
        ({"n": {"gte": "soon"}}, "filter.n.gte"),
        ({"n": {"gte": True}}, "filter.n.gte"),
        ({"n": {"gte": 1, "lt": "2026-01-01"}}, "filter.n"),
        ({"n": []}, "filter.n"),
        ({"n": [[1]]}, "filter.n"),
        ({"n": ["x" * 300]}, "filter.n"),
        ({"n": "nul \x00"}, "filter.n"),
        ({"": 1}, "filter."),
        ({str(number): 1 for number in range(17)}, "filter"),
        ("n = 1", "filter"),
    ],
)
def test_a_filter_that_makes_no_sense_names_the_field(box: Box, wanted: Any, param: str) -> None:
    assert error_of(box.post("/search", query="x", filter=wanted), 400)["param"] == param


# Every answer


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/search", 405), ("GET", "/v1/embeddings", 405)]
)
def test_what_is_not_there_is_said_in_the_same_shape(box: Box, method: str, path: str, status: int) -> None:
    error_of(box.client.request(method, path), status)


def test_a_body_that_is_no_json_is_refused(box: Box) -> None:
    answer = box.client.post("/search", content=b"{not json", headers={"content-type": "application/json"})
    assert error_of(answer, 400)["code"] == "invalid_json"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(box: Box, chunked: bool) -> None:
    body = b" " * 100_001
    answer = box.client.post("/search", content=iter([body]) if chunked else body)
    assert error_of(answer, 413)["code"] == "body_too_large"


def test_a_request_keeps_the_id_it_came_with(box: Box) -> None:
    assert box.client.get("/livez", headers={"x-request-id": "trace-7"}).headers["x-request-id"] == "trace-7"
    invented = box.client.get("/livez", headers={"x-request-id": "a b\tc"}).headers["x-request-id"]
    assert invented.isalnum()


def test_the_log_holds_neither_texts_nor_keys(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(log, "stream", written)
    box.found("비밀스러운 질문")
    box.client.post("/documents", json={"id": "비밀-id", "text": "비밀\x00"})
    box.client.get("/documents/비밀-id")
    box.client.post(
        "/search", json={"query": "비밀스러운 질문"}, headers={"authorization": "Bearer 틀린-열쇠".encode()}
    )
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["status"] for line in lines if line["event"] == "request"] == [200, 400, 404, 401]
    assert all(line["request_id"] for line in lines)
    assert "비밀" not in written.getvalue() and "열쇠" not in written.getvalue() and KEYS[0] not in written.getvalue()


def test_the_page_loads_nothing_from_elsewhere(box: Box) -> None:
    answer = box.client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "https://" not in answer.text and "http://" not in answer.text


def test_an_error_nobody_expected_has_the_same_shape_and_an_id(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("with a customer's text in it")

    monkeypatch.setattr(type(box.services.search), "run", fail)
    answer = box.post("/search", query="반품")
    error = error_of(answer, 500)
    assert error["type"] == "server_error" and "customer" not in error["message"]
    assert answer.headers["x-request-id"]


def test_without_room_for_more_work_a_request_is_told_when_to_come_back(box: Box) -> None:
    lane = box.services.models.lanes.query
    with ExitStack() as stack:
        for _ in range(lane.limits.jobs):
            stack.enter_context(lane.job(1))
        answer = box.post("/search", query="a question that no cache has")
        assert error_of(answer, 429)["code"] == "overloaded"
        assert int(answer.headers["retry-after"]) >= 1
        assert box.client.get("/livez").status_code == 200
        # Bulk work has a lane of its own.
        assert box.post("/v1/embeddings", input=["word " * 300, "words " * 300]).status_code == 200
    assert box.post("/search", query="a question that no cache has").status_code == 200


def test_a_search_without_room_for_the_reranker_keeps_the_first_order_and_says_so(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = box.services.models.get()
    assert loaded.reranker is not None

    def full(*_: object, **__: object) -> None:
        raise OverloadedError("32 requests are at work.", retry_after=1)

    monkeypatch.setattr(loaded.reranker, "score", full)
    answer = box.post("/search", query="반품").json()
    assert answer["results"]
    assert (answer["rerank"]["ran"], answer["rerank"]["candidates"]) == (False, 0)
    assert answer["rerank"]["reason"] == "overloaded"
    assert answer["rerank"]["why"] == "overloaded: 32 requests are at work."


def test_a_text_longer_than_the_model_reads_is_cut_refused_or_taken_in_windows(box: Box) -> None:
    long = "반품은 상품을 받은 날부터 7일 안에 할 수 있습니다. " * 40
    cut = box.post("/v1/embeddings", input=[long, "short"]).json()["data"]
    assert cut[0]["truncated"] is True and "truncated" not in cut[1]
    refused = box.post("/v1/embeddings", input=["short", long], long_texts="refuse")
    assert error_of(refused, 400)["param"] == "input.1"
    windows = box.post("/v1/embeddings", input=[long], long_texts="windows").json()
    assert "truncated" not in windows["data"][0]
    assert windows["data"][0]["embedding"] != cut[0]["embedding"]
    assert windows["usage"]["prompt_tokens"] > 128


def test_a_box_without_room_is_busy_and_not_broken(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box.services.readiness, "_good_until", 0.0)
    lane = box.services.models.lanes.query
    with ExitStack() as stack:
        for _ in range(lane.limits.jobs):
            stack.enter_context(lane.job(1))
        assert box.client.get("/readyz").status_code == 200
