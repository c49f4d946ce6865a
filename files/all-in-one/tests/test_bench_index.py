"""The benchmark's index part, which runs in the app's image, over a small index."""

from pathlib import Path

import numpy as np
import psycopg
import pytest

from bench.inside_index import measure, scratch_database, sentence_pairs

PASSAGES = {
    "ko": "반품은 7일 안에 됩니다. 환불은 사흘 걸립니다. 배송은 무료입니다. 쿠폰은 한 장입니다. 전화로 하세요.",
    "en": "Returns take a week. Refunds take three days. Shipping is free. One coupon counts. Call us with questions.",
}


def test_texts_are_different_pairs_of_sentences_in_both_languages() -> None:
    texts = sentence_pairs(PASSAGES, 20)
    assert len(set(texts)) == 20
    assert sentence_pairs(PASSAGES, 20) == texts
    assert "Returns take a week. Shipping is free." in sentence_pairs(PASSAGES, 40)
    assert sum(text.isascii() for text in texts) == 10


def test_a_filled_index_finds_what_is_nearest_and_answers_searches(
    empty_database: str, model_environment: dict[str, str], tmp_path: Path
) -> None:
    questions = ["반품은 며칠?", "Is shipping free?", "쿠폰", "refund"]
    (tmp_path / "of-another-model.npy").touch()
    found = measure(empty_database, sentence_pairs(PASSAGES, 30), questions, tmp_path)
    assert found["chunks"] == 30
    assert (found["recall@10"], found["recall@100"]) == (1.0, 1.0)
    assert found["index_built_in_memory"] and found["index_build_memory"].endswith("MB")
    assert found["index_mb"] > 0 and found["words_mb"] > 0
    assert found["first_searches"]["count"] == found["search"]["count"] == 2
    assert {"embed", "vectors", "words", "total"} <= set(found["stages_p95_ms"])
    assert found["embed_seconds"] is not None
    (kept,) = tmp_path.iterdir()
    vectors = np.load(kept)
    assert vectors.shape == (30, 32) and len(np.unique(vectors, axis=0)) == 30


def test_vectors_of_an_earlier_run_are_not_computed_again(
    empty_database: str, model_environment: dict[str, str], tmp_path: Path
) -> None:
    texts = sentence_pairs(PASSAGES, 30)
    first = measure(empty_database, texts, ["쿠폰", "refund"], tmp_path)
    with psycopg.connect(empty_database, autocommit=True) as database:
        database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    again = measure(empty_database, texts, ["쿠폰", "refund"], tmp_path)
    assert first["embed_seconds"] is not None and again["embed_seconds"] is None
    assert again["recall@10"] == 1.0


def test_a_second_run_leaves_the_first_ones_database_alone(empty_database: str) -> None:
    with scratch_database(empty_database) as scratch:
        with pytest.raises(SystemExit, match="another run"), scratch_database(empty_database):
            pass
        psycopg.connect(scratch).close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(scratch)
    with scratch_database(empty_database) as scratch:
        psycopg.connect(scratch).close()
