"""Labelled queries of the operator decide about a generation too."""

import json
from pathlib import Path

import damage
import numpy as np
import pytest
import tiny_models
from box import running_worker
from waiting import eventually

from store import documents, generations, switching
from store.connection import Database
from store.documents import Document
from store.generations import Generation
from text import analyser, chunker
from worker import labelled
from worker.labelled import Labelled, LabelsError

TOPICS = ("반품", "배송", "환불", "쿠폰", "회원", "결제", "포장", "교환", "매장", "주문", "점검", "영수증")


@pytest.fixture
def models(releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder of the test's own."""
    folder = damage.own_models(releases, tmp_path)
    for name, value in damage.environment(folder).items():
        monkeypatch.setenv(name, value)
    return folder


def judged(database: Database, models: Path, release: str) -> Generation:
    """The generation of a release, once it is judged."""
    folder = models / "releases" / release
    wanted = generations.read_wanted(folder, chunker=chunker.VERSION, analyser=analyser.VERSION)
    switching.want(database, wanted)
    eventually(lambda: (generations.upcoming(database) or pytest.fail("it is gone")).state != "building")
    coming = generations.upcoming(database)
    assert coming is not None
    return coming


def write(models: Path, rows: list[dict[str, object]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (models / "queries.jsonl").write_text(lines, encoding="utf-8")


def test_a_generation_that_answers_as_well_is_ready(
    *, database: Database, database_url: str, generation: Generation, models: Path, tmp_path: Path
) -> None:
    write(models, [{"query": f"{topic} 안내", "relevant": [topic]} for topic in TOPICS])
    with running_worker(database_url, tmp_path):
        documents.submit(database, [Document(topic, f"{topic} 안내입니다.") for topic in TOPICS])
        coming = judged(database, models, "tiny-embedding-2")
    assert (coming.state, coming.why) == ("ready", None)
    assert coming.gate is not None
    assert coming.gate["queries"] == len(TOPICS) and coming.gate["ndcg"] > 0.5


def test_a_generation_that_answers_worse_is_refused(
    *, database: Database, database_url: str, generation: Generation, models: Path, tmp_path: Path
) -> None:
    # Its queries get a prefix with so many words that all of them are alike.
    prefixes = {"query": "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 4, "passage": "passage: "}
    tiny_models.write_embedding_release(models / "releases", revision="9", prefixes=prefixes)
    # Nothing but vectors tells these apart: no word of a query stands in a document.
    names = ["wa", "xe", "yi", "zo", "ku", "ma", "ne", "pi", "ro", "su", "ta", "ve", "du", "fo", "gi", "ha"]
    write(models, [{"query": f"{name}{name}", "relevant": [name]} for name in names])
    with running_worker(database_url, tmp_path):
        documents.submit(database, [Document(name, name * 3) for name in names])
        coming = judged(database, models, "tiny-embedding-9")
    assert coming.state == "refused" and coming.why is not None
    assert coming.why.startswith("tiny-embedding-9 answers the 16 labelled queries worse than what serves: nDCG@10 0.")
    assert coming.gate is not None and coming.gate["ndcg"] < coming.gate["ndcg_before"]


def test_a_file_that_cannot_be_used_refuses_with_its_line(
    *, database: Database, database_url: str, generation: Generation, models: Path, tmp_path: Path
) -> None:
    (models / "queries.jsonl").write_text('{"query": "반품", "relevant": ["a"]}\n{"query": "반품"}\n', encoding="utf-8")
    with running_worker(database_url, tmp_path):
        documents.submit(database, [Document("a", "반품 안내입니다.")])
        coming = judged(database, models, "tiny-embedding-2")
        assert coming.state == "refused" and coming.why is not None
        assert 'queries.jsonl, line 2: write {"query"' in coming.why
        (models / "queries.jsonl").unlink()
        assert switching.retry(database).changed
        eventually(lambda: (generations.upcoming(database) or coming).state == "ready")


@pytest.mark.parametrize(
    "line", ["[]", "no JSON", '{"query": "", "relevant": ["a"]}', '{"query": "q", "relevant": []}']
)
def test_a_line_without_a_query_and_its_documents_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "queries.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(LabelsError, match=r"queries.jsonl, line 1: write"):
        labelled.read(tmp_path / "queries.jsonl")


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert labelled.read(tmp_path / "queries.jsonl") == []
    assert labelled.file_of({"EMBED_ONNX_DIR": "/models/emb"}) == Path("/models/queries.jsonl")
    assert labelled.file_of({"LABELLED_QUERIES_FILE": "/elsewhere"}) == Path("/elsewhere")


def test_ndcg_is_that_of_the_textbook() -> None:
    relevant = Labelled("q", frozenset("ab")).relevant
    assert labelled.ndcg(["a", "b", "c"], relevant) == pytest.approx(1.0)
    assert labelled.ndcg(["c", "a", "b"], relevant) == pytest.approx((0.6309 + 0.5) / 1.6309, abs=1e-3)
    assert labelled.ndcg([], relevant) == 0.0


def test_only_a_loss_that_chance_does_not_explain_counts() -> None:
    noise = np.random.default_rng(1).normal(0, 0.2, 60)
    assert not labelled.is_significantly_below(noise - noise.mean())
    assert labelled.is_significantly_below(noise - noise.mean() - 0.1)
    assert not labelled.is_significantly_below(noise - noise.mean() + 0.1)
    assert not labelled.is_significantly_below(np.full(9, -1.0)), "of so few nothing can be said"
