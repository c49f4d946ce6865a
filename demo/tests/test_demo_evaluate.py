"""The evaluation computes what the field means by its three figures, for each way to search and each language."""

import json
import math
from pathlib import Path

import pytest

import evaluate
from evaluate import Query, measured
from onebox.client import Answer, Box, Result
from onebox.client import OneboxError as DemoError
from onebox.tests.standin import KEY, StandinBox

DOCUMENTS = [
    {"id": "doors-en-01", "title": "Doors", "text": "Doors need keys."},
    {"id": "keys-en-01", "title": "Keys", "text": "Keys for doors that need new keys quickly."},
    {"id": "keys-ko-01", "title": "열쇠", "text": "열쇠를 잃어버리셨다면"},
]
LINES = [json.dumps(document).encode() for document in DOCUMENTS]
QUERIES = [
    {"id": "1", "language": "en", "query": "doors", "relevant": ["doors-en-01"]},
    {"id": "2", "language": "en", "query": "need quickly", "relevant": ["doors-en-01"]},
    {"id": "3", "language": "ko", "query": "대문", "relevant": ["keys-ko-01"]},
]


def answer_of(*document_ids: str) -> Answer:
    return Answer([Result(document_id, "", "", 0.5) for document_id in document_ids], 1.0, True, "", 0)


@pytest.fixture
def arguments(standin: StandinBox, key_file: Path, tmp_path: Path) -> list[str]:
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps(query) for query in QUERIES), encoding="utf-8")
    return ["--url", standin.url, "--key-file", str(key_file), "--queries", str(path)]


def test_figures_are_what_trec_eval_means_by_them() -> None:
    figures = measured([Query("1", "en", "q", ("b", "z"))], [answer_of("a", "b", "c")])
    ideal = 1 + 1 / math.log2(3)
    assert figures == pytest.approx({"recall@5": 0.5, "MRR@10": 0.5, "nDCG@10": (1 / math.log2(3)) / ideal})


def test_the_order_of_the_box_counts_even_where_scores_are_equal() -> None:
    for order in ("ab", "ba"):
        figures = measured([Query("1", "en", "q", ("a",))], [answer_of(*order)])
        assert figures["MRR@10"] == (1.0 if order == "ab" else 0.5)


def test_a_query_that_found_nothing_counts_as_zero() -> None:
    queries = [Query("1", "en", "q", ("a",)), Query("2", "en", "r", ("a",))]
    assert measured(queries, [answer_of("a"), answer_of()]) == {"recall@5": 0.5, "MRR@10": 0.5, "nDCG@10": 0.5}


def test_recall_looks_at_five_and_the_others_at_ten() -> None:
    figures = measured([Query("1", "en", "q", ("x",))], [answer_of("a", "b", "c", "d", "e", "x")])
    assert figures["recall@5"] == 0
    assert figures["MRR@10"] == pytest.approx(1 / 6)


def test_the_three_ways_ask_the_box_for_three_different_searches(standin: StandinBox, arguments: list[str]) -> None:
    Box(standin.url, KEY).submit(LINES)
    evaluate.main(arguments)
    asked = [(search["rerank"], search["fusion"], search["top_k"]) for search in standin.searches]
    assert list(dict.fromkeys(asked)) == [(False, "vectors", 10), (False, "hybrid", 10), (True, "hybrid", 10)]
    assert len(asked) == 9


def test_the_table_has_a_block_for_all_and_for_each_language(
    standin: StandinBox, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Box(standin.url, KEY).submit(LINES)
    assert evaluate.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "labels.jsonl: 3 queries"
    assert lines[1].split() == ["recall@5", "MRR@10", "nDCG@10"]
    assert [line for line in lines if line.endswith(")")] == ["all (3)", "Korean (1)", "English (2)"]
    assert lines[-1].endswith("whole search 12 ms; reranked: 3 of 3")
    assert [line.split()[-3:] for line in lines if "whole search  " in line] == [
        ["0.667", "0.500", "0.544"],
        ["0.000", "0.000", "0.000"],
        ["1.000", "0.750", "0.815"],
    ]


def test_json_holds_the_same_figures(
    standin: StandinBox, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Box(standin.url, KEY).submit(LINES)
    evaluate.main([*arguments, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert list(told["ways"]) == ["vectors alone", "vectors + words", "whole search"]
    assert told["ways"]["whole search"]["figures"]["English"]["MRR@10"] == 0.75


def test_a_box_without_the_labelled_documents_is_not_measured(standin: StandinBox, arguments: list[str]) -> None:
    Box(standin.url, KEY).submit(LINES[:1])
    with pytest.raises(DemoError, match=r"lacks 1 of the 2 labelled documents \(keys-ko-01 .*onebox ingest"):
        evaluate.main(arguments)
    assert not standin.searches


def test_a_query_without_a_label_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({**QUERIES[0], "relevant": []}))
    with pytest.raises(DemoError, match="query 1: lacks a relevant passage"):
        evaluate.queries_of(path)
