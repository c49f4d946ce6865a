"""Ranking candidates, with real graphs."""

import math
import time
from pathlib import Path

import pytest
from tiny_graphs import ALL_INPUTS, byte_tokenizer, write_model

import pipeline.reranker
from pipeline.errors import ModelError
from pipeline.reranker import Reranker
from pipeline.tokens import TextTokenizer


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RERANK_MODEL", "RERANK_ONNX_PATH", "RERANK_ONNX_DIR", "RERANK_FALLBACK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def reranker(tmp_path: Path) -> Reranker:
    return Reranker(write_model(tmp_path / "m", "reranker", inputs=ALL_INPUTS, manifest={"id": "tiny-rr"}), threads=2)


CANDIDATES = ["first answer", "zzz", "환불은 3일 안에 됩니다", "another, much longer answer " * 3]


def test_the_best_candidate_comes_first(reranker: Reranker) -> None:
    ranking = reranker.rerank("question", CANDIDATES)
    scores = reranker.score("question", CANDIDATES)
    assert sorted(entry["idx"] for entry in ranking) == [0, 1, 2, 3]
    assert [entry["score"] for entry in ranking] == sorted((s or 0.0 for s in scores), reverse=True)
    assert all(scores[entry["idx"]] == entry["score"] for entry in ranking)


def test_a_score_is_the_sigmoid_of_the_logit(reranker: Reranker) -> None:
    logit = reranker.logits("question", ["answer"])[0]
    assert logit is not None
    assert reranker.score("question", ["answer"]) == [pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-15)]


def test_a_score_does_not_depend_on_the_other_candidates(reranker: Reranker) -> None:
    assert reranker.score("question", CANDIDATES) == [reranker.score("question", [text])[0] for text in CANDIDATES]


def test_equal_candidates_keep_the_first_stages_order(reranker: Reranker) -> None:
    assert [entry["idx"] for entry in reranker.rerank("question", ["same"] * 5)] == [0, 1, 2, 3, 4]


def test_pairs_after_the_deadline_have_no_score(reranker: Reranker) -> None:
    assert reranker.score("question", CANDIDATES, deadline=time.monotonic() - 1) == [None] * 4
    assert None not in reranker.score("question", CANDIDATES, deadline=time.monotonic() + 60)


def test_as_many_candidates_fit_as_the_speed_of_late_allows(reranker: Reranker) -> None:
    assert reranker.fitting("question", CANDIDATES, 0.0) == 4  # nothing is known yet
    reranker.score("question", CANDIDATES, lane="bulk")
    assert reranker.fitting("question", CANDIDATES, 0.0) == 4  # that bulk work is slow tells nothing
    reranker.score("question", CANDIDATES, lane="query")
    assert [reranker.fitting("question", CANDIDATES, seconds) for seconds in (0.0, 1e6)] == [0, 4]
    assert reranker.fitting("question", [], 1e6) == 0


def test_work_that_waits_leaves_less_time_for_candidates(reranker: Reranker) -> None:
    reranker.score("question", CANDIDATES, lane="query")
    with reranker.engine.lanes.query.job(10**15):
        assert reranker.fitting("question", CANDIDATES, 1000.0) == 0
    assert reranker.fitting("question", CANDIDATES, 1000.0) == 4


def test_a_speed_is_forgotten_so_that_it_is_measured_again(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    reranker.score("question", CANDIDATES, lane="query")
    monkeypatch.setattr(pipeline.reranker, "PACE_KEPT", 0.0)
    assert reranker.fitting("question", CANDIDATES, 0.0) == 4


def test_with_a_deadline_the_first_candidates_are_scored_first(tmp_path: Path) -> None:
    reranker = Reranker(write_model(tmp_path / "m", "reranker"), threads=1)
    scores = reranker.score("question", ["answer " * 8] * 20000, deadline=time.monotonic() + 0.2)
    scored = [score is not None for score in scores]
    assert scored == sorted(scored, reverse=True)
    assert True in scored
    assert False in scored


def test_a_pair_is_encoded_as_the_tokenizer_itself_would(tmp_path: Path) -> None:
    tokens = TextTokenizer(write_model(tmp_path / "m") / "tokenizer.json", 64)
    pair = tokens.pair(tokens.query("ab"), "cde")
    whole = byte_tokenizer().encode("ab", "cde")
    assert (pair.ids, pair.type_ids, pair.truncated) == (whole.ids, whole.type_ids, False)


def test_only_the_document_is_cut(tmp_path: Path) -> None:
    tokens = TextTokenizer(write_model(tmp_path / "m") / "tokenizer.json", 64)
    pair = tokens.pair(tokens.query("a" * 20), "b" * 500)
    letters = byte_tokenizer().encode("ab").ids[1:3]
    assert len(pair.ids) == 64
    assert pair.truncated
    assert pair.ids.count(letters[0]) == 20
    assert pair.ids.count(letters[1]) == 64 - 20 - 4


def test_a_query_leaves_half_of_the_length_to_the_document(tmp_path: Path) -> None:
    tokens = TextTokenizer(write_model(tmp_path / "m") / "tokenizer.json", 64)
    pair = tokens.pair(tokens.query("a" * 500), "b" * 500)
    assert pair.type_ids.count(1) == 31


def test_a_model_with_two_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="2 values per pair"):
        Reranker(write_model(tmp_path / "m", "reranker", labels=2))


def test_an_embedding_release_is_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="embedding"):
        Reranker(write_model(tmp_path / "m", "embedding", manifest={}))


def test_without_a_model_the_error_names_the_variable() -> None:
    with pytest.raises(ModelError, match="RERANK_ONNX_DIR"):
        Reranker()


def test_word_overlap_stands_in_only_when_asked_for_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_FALLBACK", "overlap")
    reranker = Reranker()
    assert reranker.degraded is not None
    assert "RERANK_ONNX_DIR" in reranker.degraded
    ranking = reranker.rerank("return policy", ["cats", "our return policy", "policy"])
    assert [entry["idx"] for entry in ranking] == [1, 2, 0]
