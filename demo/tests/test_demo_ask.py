"""Asking prints what a person wants to read, and fails where the expected passage is not first."""

import subprocess
import sys
from pathlib import Path

import pytest

import ask
from client import Box
from standin import KEY, StandinBox

LONG = "Doors need keys. " * 20
DOCUMENTS = [
    {"id": "doors-en-01", "title": "Doors", "text": LONG},
    {"id": "keys-en-01", "title": "Keys", "text": "A lost key is replaced for 5,000 won."},
]


@pytest.fixture
def arguments(standin: StandinBox, key_file: Path) -> list[str]:
    Box(standin.url, KEY).submit(DOCUMENTS)
    return ["--url", standin.url, "--key-file", str(key_file)]


def test_an_answer_shows_score_title_excerpt_reranking_and_time(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask.main(["my key is lost", *arguments]) == 0
    out = capsys.readouterr().out
    assert out.startswith("my key is lost\n  1  0.300  Keys  [keys-en-01]\n          A lost key is replaced")
    assert "(reranked 1 candidates; 12 ms)" in out


def test_a_long_passage_is_cut_after_120_characters(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    ask.main(["doors", *arguments])
    shown = " ".join(line.strip() for line in capsys.readouterr().out.splitlines()[2:-2])
    assert shown.endswith("…")
    assert len(shown) <= 121


def test_without_arguments_the_two_questions_of_the_demo_are_asked(standin: StandinBox, arguments: list[str]) -> None:
    ask.main(arguments)
    assert [search["query"] for search in standin.searches] == [
        "반품 정책은 어떻게 되나요?",
        "How long do I have to return an item?",
    ]


def test_the_expected_passage_first_is_success(arguments: list[str]) -> None:
    assert ask.main(["lost key", "doors", "--expect", "keys-en-01", "--expect", "doors-en-01", *arguments]) == 0


def test_another_passage_first_is_told_and_fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main(["lost key need", "--expect", "doors-en-01", *arguments]) == 1
    assert "expected doors-en-01 first, found keys-en-01; it came 2." in capsys.readouterr().err


def test_no_answer_at_all_fails_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ask.main(["zebra", "--expect", "doors-en-01", *arguments]) == 1
    captured = capsys.readouterr()
    assert "no result: ingest the corpus first" in captured.out
    assert "found nothing" in captured.err


def test_expectations_and_questions_have_to_be_as_many(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        ask.main(["lost key", "doors", "--expect", "keys-en-01", *arguments])
    assert "1 --expect for 2 questions" in capsys.readouterr().err


def test_korean_is_wrapped_by_the_columns_it_takes() -> None:
    lines = ask.wrapped("받으신 날부터 14일 이내에 반품하실 수 있습니다", 20)
    assert lines == ["받으신 날부터 14일", "이내에 반품하실 수", "있습니다"]
    assert max(map(ask.columns, lines)) <= 20


def test_as_a_program_it_exits_2_with_one_sentence(standin: StandinBox) -> None:
    finished = subprocess.run(
        [sys.executable, ask.__file__, "--url", standin.url], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"error: {standin.url} wants an API key (401")
    assert finished.stderr.count("\n") == 1
