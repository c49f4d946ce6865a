"""The gate's arithmetic, on values worked out by hand."""

import math

import numpy as np
import pytest

from modelbuild import metrics
from modelbuild.gate import judge
from modelbuild.texts import GateTexts, read_gate_texts, sanity_triples


def test_cosines_are_per_row_and_need_no_unit_vectors() -> None:
    left, right = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[2.0, 0.0], [1.0, 0.0]])
    assert metrics.cosines(left, right).tolist() == pytest.approx([1.0, 1 / math.sqrt(2)])


def test_overlap_counts_common_columns_whatever_their_order() -> None:
    reference = np.array([[0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.7, 0.1]])
    other = np.array([[0.7, 0.9, 0.1, 0.8], [0.8, 0.9, 0.7, 0.1]])
    assert metrics.top_overlap(reference, other, 2).tolist() == [0.5, 1.0]


def test_overlap_of_fewer_columns_than_asked_for_is_whole() -> None:
    assert metrics.top_overlap(np.array([[1.0, 2.0]]), np.array([[2.0, 1.0]]), 10).tolist() == [1.0]


def test_top1_agreement_looks_at_the_best_column_only() -> None:
    reference = np.array([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5]])
    other = np.array([[0.2, 0.8, 0.1], [0.3, 0.4, 0.5]])
    assert metrics.top1_agreement(reference, other).tolist() == [1.0, 0.0]


def test_spearman_is_one_for_the_same_order_and_minus_one_for_the_opposite() -> None:
    values = np.array([1.0, 5.0, 2.0])
    assert metrics.spearman(values, values**3) == pytest.approx(1.0)
    assert metrics.spearman(values, -values) == pytest.approx(-1.0)


def test_spearman_by_the_textbook_formula() -> None:
    left, right = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([2.0, 1.0, 4.0, 3.0, 5.0])
    assert metrics.spearman(left, right) == pytest.approx(1 - 6 * 4 / (5 * 24))


def test_tied_values_share_their_mean_rank() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5 over sqrt(4.5 * 5).
    assert metrics.spearman(np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(
        4.5 / math.sqrt(4.5 * 5)
    )


def test_a_constant_result_correlates_with_nothing() -> None:
    assert metrics.spearman(np.array([1.0, 2.0]), np.array([3.0, 3.0])) == 0.0


def test_the_worst_language_is_not_hidden_by_the_others() -> None:
    assert metrics.worst_group(np.array([1.0, 1.0, 1.0, 0.0]), ["en", "en", "ko", "ko"]) == 0.5


THRESHOLDS = {"min_cosine": 0.97, "max_drift": 0.1, "max_time_ratio": 1.05}


def test_figures_within_the_thresholds_pass() -> None:
    assert judge({"cosine": 0.97, "drift": 0.1, "time_ratio": 1.05}, THRESHOLDS) == []


def test_each_missed_threshold_is_said_with_its_value() -> None:
    wrong = judge({"cosine": 0.96, "drift": 0.2, "time_ratio": 1.0}, THRESHOLDS)
    assert wrong == ["cosine 0.96 is below 0.97", "drift 0.2 is above 0.1"]


def test_what_was_not_measured_yet_is_not_judged() -> None:
    assert judge({"cosine": 0.99}, THRESHOLDS) == []


def test_a_figure_that_is_no_number_fails() -> None:
    assert judge({"cosine": float("nan")}, THRESHOLDS) == ["cosine nan is below 0.97"]


def test_a_failed_sanity_pair_fails_the_gate() -> None:
    assert judge({"sanity": 0.5}, {}) == ["an irrelevant text scores above a relevant one"]


def test_the_gates_text_has_both_languages_short_and_long() -> None:
    texts = read_gate_texts(("multilingual",))
    assert set(texts.passage_languages) == {"ko", "en"}
    lengths = [len(passage) for passage in texts.passages]
    assert min(lengths) < 100
    assert max(lengths) > 400
    for query, passage in enumerate(texts.passage_of):
        assert texts.query_languages[query] == texts.passage_languages[passage]


def test_a_models_languages_choose_the_text() -> None:
    assert set(read_gate_texts(("ko",)).query_languages) == {"ko"}
    assert set(read_gate_texts(("fr",)).query_languages) == {"ko", "en"}
    assert len(sanity_triples(("multilingual",))) == 2
    assert sanity_triples(("fr",)) == []


def test_a_querys_candidates_are_its_passage_and_neighbours_in_its_language() -> None:
    texts = GateTexts(
        passages=[str(i) for i in range(20)],
        passage_languages=["ko", "en"] * 10,
        queries=["q"],
        query_languages=["ko"],
        passage_of=[6],
    )
    candidates = texts.candidates(0)
    assert 6 in candidates
    assert len(candidates) == 8
    assert all(index % 2 == 0 for index in candidates)
