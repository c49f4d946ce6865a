"""The figures are what the field means by them, and a difference is told from luck."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from measures import Query, compared, groups_of, margin_of, measured, queries_of
from onebox.client import OneboxError as DemoError


def query(number: int, *relevant: str, language: str = "en", kind: str = "short") -> Query:
    return Query(str(number), language, kind, f"query {number}", relevant)


def values_of(query: Query, *ranking: str) -> dict[str, float]:
    return {name: float(value[0]) for name, value in measured([query], [ranking]).items()}


def test_figures_are_what_trec_eval_means_by_them() -> None:
    ideal = 1 + 1 / math.log2(3)
    found = values_of(query(1, "b", "z"), "a", "b", "c")
    assert found == pytest.approx({"recall@5": 0.5, "MRR@10": 0.5, "nDCG@10": (1 / math.log2(3)) / ideal})


def test_the_order_of_the_box_counts() -> None:
    assert values_of(query(1, "a"), "a", "b")["MRR@10"] == 1.0
    assert values_of(query(1, "a"), "b", "a")["MRR@10"] == 0.5


def test_recall_looks_at_five_and_the_others_at_ten() -> None:
    found = values_of(query(1, "x"), "a", "b", "c", "d", "e", "x")
    assert found["recall@5"] == 0
    assert found["MRR@10"] == pytest.approx(1 / 6)


def test_each_query_keeps_its_place_and_one_that_found_nothing_counts_as_zero() -> None:
    queries = [query(number, "a") for number in (2, 10, 1)]
    found = measured(queries, [["b", "a"], [], ["a"]])
    assert found["MRR@10"].tolist() == [0.5, 0.0, 1.0]


def test_a_query_belongs_to_all_to_its_language_and_to_its_class() -> None:
    queries = [query(1, "a", language="ko", kind="cross"), query(2, "a", kind="short"), query(3, "a", kind="cross")]
    groups = {name: members.tolist() for name, members in groups_of(queries).items()}
    assert groups == {
        "all": [True, True, True],
        "Korean": [True, False, False],
        "English": [False, True, True],
        "short": [False, True, False],
        "cross": [True, False, True],
    }


def test_a_difference_in_every_query_is_no_luck() -> None:
    theirs = np.linspace(0.0, 0.9, 30)
    found = compared(theirs + 0.1, theirs)
    assert found.difference == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1) and found.high == pytest.approx(0.1)
    assert found.p < 0.001


def test_as_many_losses_as_gains_may_be_luck() -> None:
    theirs = np.full(40, 0.5)
    ours = theirs + np.tile([0.3, -0.3, 0.2, -0.19], 10)
    found = compared(ours, theirs)
    assert found.low < 0 < found.difference < found.high
    assert found.p > 0.5


def test_ways_that_answer_alike_do_not_differ() -> None:
    same = np.array([0.0, 1.0, 0.5, 0.3])
    found = compared(same, same.copy())
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_the_margin_is_the_lead_that_gives_the_best_mean() -> None:
    leads = [0.5, 0.4, 0.3, 0.2, None]
    judged = np.array([1.0, 1.0, 0.4, 1.0, 1.0])
    first = np.array([1.0, 0.9, 0.6, 0.9, 0.1])
    assert margin_of(leads, first, judged) == 0.3


def test_of_margins_that_are_as_good_the_least_skips_most() -> None:
    assert margin_of([0.5, 0.4, 0.3], np.array([1.0, 0.9, 0.5]), np.array([0.9, 0.9, 0.6])) == 0.4
    assert margin_of([0.5, 0.4, 0.3], np.ones(3), np.ones(3)) == 0.3


def test_there_is_no_margin_where_judging_is_better_for_any_lead() -> None:
    assert margin_of([0.5, 0.4, None], np.array([0.5, 0.5, 1.0]), np.array([0.6, 0.6, 0.0])) is None
    assert margin_of([None], np.ones(1), np.ones(1)) is None


def test_leads_that_are_equal_are_left_out_together() -> None:
    assert margin_of([0.5, 0.5], np.array([1.0, 0.0]), np.array([0.9, 0.9])) is None
    assert margin_of([0.5, 0.5], np.array([1.0, 0.9]), np.array([0.9, 0.9])) == 0.5


def test_a_query_without_a_label_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    whole = {"id": "1", "language": "en", "class": "short", "query": "doors", "relevant": ["a"]}
    for change, complaint in (
        ({"relevant": []}, "query 1: lacks a relevant passage"),
        ({"language": "fr"}, "query 1: language 'fr', expected one of"),
        ({"class": "odd"}, "query 1: class 'odd', expected one of"),
    ):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(DemoError, match=complaint):
            queries_of(path)
