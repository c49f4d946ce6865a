"""Asking prints what a person wants to read, and fails where the expected document is not first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onebox.client import Box, OneboxError, Result
from onebox.command import main
from onebox.results import excerpt
from onebox.tests.standin import KEY, StandinBox

ROOT = Path(__file__).resolve().parents[2]
LONG = "Doors need keys. " * 40
DOCUMENTS = [
    {"id": "doors-en-01", "title": "Doors", "text": LONG},
    {"id": "keys-en-01", "title": "Keys [new]", "text": "A lost key is replaced for 5,000 won."},
]


@pytest.fixture
def arguments(standin: StandinBox, box_arguments: list[str]) -> list[str]:
    Box(standin.url, KEY).submit([json.dumps(document).encode() for document in DOCUMENTS])
    return box_arguments


def test_an_answer_shows_score_title_excerpt_reranking_and_time(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "my", "key is lost", *arguments]) == 0
    out = capsys.readouterr().out
    assert out.startswith("my key is lost\n  1  0.300  Keys [new]  [keys-en-01]\n          A lost key is replaced")
    assert "(reranked 1 candidates; 12 ms)" in out


def test_the_words_of_one_question_need_no_quotes(standin: StandinBox, arguments: list[str]) -> None:
    main(["search", *arguments, "반품", "정책은", "어떻게"])
    assert standin.searches[0] == {"query": "반품 정책은 어떻게", "top_k": 3, "filter": {}}


def test_an_excerpt_shows_what_was_found() -> None:
    text = "앞부분입니다. " * 100 + "분실물 보관소는 지하에 있습니다. " + "뒷부분입니다. " * 100
    start = text.index("분실물")
    shown = excerpt(Result("x", "", text, 1.0, highlights=((start, start + 3),)))
    assert shown.plain.startswith("…") and shown.plain.endswith("…") and len(shown) <= 242
    marked = [shown.plain[span.start : span.end] for span in shown.spans if "underline" in str(span.style)]
    assert marked == ["분실물"]


def test_filters_and_ways_to_search_reach_the_box(standin: StandinBox, arguments: list[str]) -> None:
    filters = ["lang=ko", "shelf=1", "shelf=2", 'code="007"', "sold>=2026-01-01", "sold<2026-02-01", "price<=10.5"]
    options = [part for condition in filters for part in ("--filter", condition)]
    main(["search", "x", "--rerank", "off", "--fusion", "words", "--top-k", "5", *options, *arguments])
    assert standin.searches[0] == {
        "query": "x",
        "top_k": 5,
        "rerank": "off",
        "fusion": "words",
        "filter": {
            "lang": ["ko"],
            "shelf": [1, 2],
            "code": ["007"],
            "sold": {"gte": "2026-01-01", "lt": "2026-02-01"},
            "price": {"lte": 10.5},
        },
    }


def test_a_condition_that_makes_no_sense_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["search", "x", "--filter", "lang", *arguments])
    assert left.value.code == 2 and "'lang' is not NAME=VALUE" in capsys.readouterr().err
    with pytest.raises(OneboxError, match="--filter n: it is either equal to something or between bounds"):
        main(["search", "x", "--filter", "n=1", "--filter", "n>2", *arguments])


def test_the_answer_as_it_is(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(["search", "lost", "--json", *arguments])
    assert json.loads(capsys.readouterr().out)["results"][0]["document_id"] == "keys-en-01"


def test_the_expected_document_first_is_success(arguments: list[str]) -> None:
    assert main(["search", "lost key", "--expect", "keys-en-01", *arguments]) == 0


def test_another_document_first_is_told_and_fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "lost key need", "--expect", "doors-en-01", *arguments]) == 1
    assert "expected doors-en-01 first, found keys-en-01; it came 2." in capsys.readouterr().err


def test_no_answer_at_all_fails_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "zebra", "--expect", "doors-en-01", *arguments]) == 1
    captured = capsys.readouterr()
    assert "nothing found" in captured.out
    assert "found nothing" in captured.err


def test_as_a_program_it_exits_2_with_one_sentence(standin: StandinBox) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "onebox", "search", "x", "--url", standin.url],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"error: {standin.url} wants an API key (401")
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["ONEBOX_KEY_FILE", "ONEBOX_KEY"])
def test_address_and_key_may_come_from_the_environment(standin: StandinBox, key_file: Path, name: str) -> None:
    key = str(key_file) if name == "ONEBOX_KEY_FILE" else KEY
    finished = subprocess.run(
        [sys.executable, "-m", "onebox", "status"],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "ONEBOX_URL": standin.url, name: key},
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "status      ok" in finished.stdout
