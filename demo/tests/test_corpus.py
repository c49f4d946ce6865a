"""The sample corpus keeps its promises: unique, labelled, balanced, and queries that are nobody's copy."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).resolve().parents[1] / "corpus"


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPUS / name).read_text(encoding="utf-8").splitlines()]


PASSAGES = read("passages.jsonl")
QUERIES = read("queries.jsonl")
HELDOUT = read("heldout.jsonl")
CLASSES = {"paraphrase", "keyword", "short", "misspelt", "cross"}


def squeezed(text: str) -> str:
    return re.sub(r"\W+", "", text).casefold()


def test_every_passage_has_its_fields_and_its_own_id_title_and_text() -> None:
    for passage in PASSAGES:
        assert set(passage) == {"id", "language", "topic", "title", "text"}
        assert re.fullmatch(rf"{passage['topic']}-{passage['language']}-\d\d", passage["id"])
    for field in ("id", "title", "text"):
        assert max(Counter(squeezed(passage[field]) for passage in PASSAGES).values()) == 1, field


def test_both_languages_are_well_represented() -> None:
    languages = Counter(passage["language"] for passage in PASSAGES)
    assert len(PASSAGES) >= 150
    assert min(languages["ko"], languages["en"]) >= 70


def test_english_passages_are_paragraphs_of_60_to_130_words() -> None:
    for passage in PASSAGES:
        if passage["language"] == "en":
            assert 60 <= len(passage["text"].split()) <= 130, passage["id"]
        else:
            assert 130 <= len(passage["text"]) <= 320, passage["id"]


def test_there_are_100_queries_to_tune_with_and_100_held_out_half_of_them_korean() -> None:
    for queries in (QUERIES, HELDOUT):
        assert Counter(query["language"] for query in queries) == {"ko": 50, "en": 50}


def test_every_class_of_query_is_well_represented_in_both_languages() -> None:
    for queries in (QUERIES, HELDOUT):
        seen = Counter((query["class"], query["language"]) for query in queries)
        assert {kind for kind, _ in seen} == CLASSES
        assert min(seen.values()) >= 6, seen


def test_a_query_across_languages_has_no_answer_in_its_own() -> None:
    languages = {passage["id"]: passage["language"] for passage in PASSAGES}
    for query in QUERIES + HELDOUT:
        own = query["language"] in {languages[known] for known in query["relevant"]}
        assert (query["class"] == "cross") == (not own), query["id"]


def test_a_short_query_has_one_to_three_words() -> None:
    for query in QUERIES + HELDOUT:
        if query["class"] == "short":
            assert 1 <= len(query["query"].split()) <= 3, query["id"]
        elif query["class"] == "paraphrase":
            assert len(query["query"].split()) > 3, query["id"]


def test_every_label_names_one_to_three_existing_passages() -> None:
    known = {passage["id"] for passage in PASSAGES}
    for query in QUERIES + HELDOUT:
        assert set(query) == {"id", "language", "class", "query", "relevant"}
        assert 1 <= len(query["relevant"]) <= 3
        assert set(query["relevant"]) <= known, query["id"]


def test_tuning_and_held_out_queries_are_disjoint() -> None:
    texts = [squeezed(query["query"]) for query in QUERIES + HELDOUT]
    ids = [query["id"] for query in QUERIES + HELDOUT]
    assert len(set(texts)) == len(texts)
    assert len(set(ids)) == len(ids)


def test_no_query_is_a_title_or_a_sentence_of_a_passage() -> None:
    titles = {squeezed(passage["title"]) for passage in PASSAGES}
    texts = [squeezed(passage["text"]) for passage in PASSAGES]
    for query in QUERIES + HELDOUT:
        text = squeezed(query["query"])
        assert text not in titles, query["id"]
        if query["class"] not in ("keyword", "short"):  # those a passage has to contain
            assert not any(text in passage for passage in texts), query["id"]
