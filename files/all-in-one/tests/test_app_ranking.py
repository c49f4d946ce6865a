"""How candidates of two kinds become one order."""

import pytest

from app.ranking import CODE_WEIGHT, WORD_WEIGHT, Term, best_per_document, fuse, lead, reorder, telling, word_weight
from store.search import Candidate


def word(chunks: int, weight: float = 1.0) -> Term:
    return Term("word", chunks, weight, is_code=False)


def code(chunks: int) -> Term:
    return Term("e204", chunks, 1.0, is_code=True)


def owned(document: str) -> Candidate:
    return Candidate(document, latin=True)


def test_a_code_that_some_document_has_counts_most() -> None:
    assert word_weight([word(50), code(1)], 100) == CODE_WEIGHT


def test_a_code_that_nobody_has_counts_nothing() -> None:
    assert word_weight([code(0)], 100) == 0


def test_words_that_nobody_has_leave_the_answer_to_vectors() -> None:
    assert word_weight([word(0), word(0)], 100) == 0


def test_common_words_leave_the_answer_to_vectors() -> None:
    assert word_weight([word(60), word(11)], 100) == 0


def test_words_count_as_far_as_the_query_lies_in_rare_ones() -> None:
    assert word_weight([word(2, weight=3.0), word(90, weight=1.0)], 100) == pytest.approx(WORD_WEIGHT * 0.75)


def test_words_tell_something_where_they_are_found_and_rare_and_codes_where_they_are_found() -> None:
    terms = [word(0), word(2), word(60), code(0), code(60)]
    assert telling(terms, 100) == [terms[1], terms[4]]


def test_a_query_without_words_has_no_weight() -> None:
    assert word_weight([], 100) == 0


def test_in_a_small_index_one_chunk_is_rare() -> None:
    assert word_weight([word(1)], 3) == WORD_WEIGHT


def test_without_weight_the_vectors_order_stays() -> None:
    assert list(fuse({1: 0.2, 2: 0.9, 3: 0.5}, {1: 99.0}, 0.0)) == [2, 3, 1]


def test_scales_do_not_matter() -> None:
    small = fuse({1: 0.81, 2: 0.80}, {2: 0.001}, 0.6)
    large = fuse({1: 0.81, 2: 0.10}, {2: 1000.0}, 0.6)
    assert list(small) == list(large) == [2, 1]
    assert small == large == pytest.approx({2: 0.6, 1: 0.4})


def test_fused_scores_lie_between_zero_and_one() -> None:
    assert all(0 <= score <= 1 for score in fuse({1: -1.0, 2: 1.0}, {1: 5.0}, 0.5).values())


def test_no_candidates_fuse_to_none() -> None:
    assert fuse({}, {}, 0.5) == {}


def test_equal_candidates_keep_one_order() -> None:
    assert list(fuse({3: 0.5, 1: 0.5, 2: 0.5}, {}, 0.0)) == [1, 2, 3]


def test_a_document_is_represented_by_its_best_chunk() -> None:
    assert best_per_document({7: 0.9, 8: 0.8, 9: 0.7}, {7: owned("a"), 8: owned("a"), 9: owned("b")}) == [7, 9]


def test_the_lead_is_the_distance_of_the_first_two() -> None:
    assert lead([0.9, 0.5, 0.1]) == pytest.approx(0.4)
    assert lead([0.9]) is lead([]) is None


def test_judged_chunks_come_first_and_the_others_keep_their_order() -> None:
    assert reorder([1, 2, 3, 4], [0.1, 0.9, None, None]) == [2, 1, 3, 4]
