"""The evaluation asks the box in every way, tells what each achieved, and keeps runs with their commit."""

import json
import subprocess
from pathlib import Path

import pytest

import evaluate
import runs
from onebox.client import Box
from onebox.client import OneboxError as DemoError
from onebox.tests.standin import KEY, StandinBox

DOCUMENTS = [
    {"id": "doors-en-01", "title": "Doors", "text": "Doors need keys."},
    {"id": "keys-en-01", "title": "Keys", "text": "Keys for doors that need new keys quickly."},
    {"id": "keys-ko-01", "title": "열쇠", "text": "열쇠를 잃어버리셨다면"},
]
QUERIES = [
    {"id": "1", "language": "en", "class": "short", "query": "doors", "relevant": ["doors-en-01"]},
    {"id": "2", "language": "en", "class": "keyword", "query": "need quickly", "relevant": ["doors-en-01"]},
    {"id": "3", "language": "ko", "class": "short", "query": "대문", "relevant": ["keys-ko-01"]},
]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps(query) for query in QUERIES), encoding="utf-8")
    return path


@pytest.fixture
def arguments(standin: StandinBox, key_file: Path, labels: Path) -> list[str]:
    Box(standin.url, KEY).submit([json.dumps(document).encode() for document in DOCUMENTS])
    return ["--url", standin.url, "--key-file", str(key_file), "--queries", str(labels)]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout that the evaluation takes for its own."""
    folder = tmp_path / "checkout"
    (folder / "demo").mkdir(parents=True)
    (folder / "demo" / "evaluate.py").write_text("the code\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "demo")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "One")
    monkeypatch.setattr(runs, "__file__", str(folder / "demo" / "evaluate.py"))
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout


def test_each_way_asks_the_box_for_another_search(standin: StandinBox, arguments: list[str]) -> None:
    evaluate.main(arguments)
    asked = [(search["rerank"], search["fusion"], search["top_k"]) for search in standin.searches]
    assert list(dict.fromkeys(asked)) == [
        ("off", "vectors", 10), ("off", "words", 10), ("off", "hybrid", 10), ("always", "hybrid", 10),
        ("auto", "hybrid", 10),
    ]  # fmt: skip
    assert len(asked) == 15


def test_the_table_has_a_block_for_all_each_language_and_each_class(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "labels.jsonl: 3 queries; embedding standin-embedding-1, reranker standin-reranker-1"
    assert lines[1].split() == ["recall@5", "MRR@10", "nDCG@10"]
    groups = [line for line in lines[2:] if line.endswith(")") and not line.startswith(" ")]
    assert groups == ["all (3)", "Korean (1)", "English (2)", "keyword (1)", "short (2)"]
    assert [line.split()[-3:] for line in lines if line.startswith("  … auto   ") and "ms" not in line] == [
        ["0.667", "0.500", "0.544"],
        ["0.000", "0.000", "0.000"],
        ["1.000", "0.750", "0.815"],
        ["1.000", "0.500", "0.631"],
        ["0.500", "0.500", "0.500"],
    ]
    assert "  fused − vectors   +0.000 [+0.000, +0.000] p=1.000" in lines
    assert "auto: the reranker was skipped in 0 of 3 searches" in lines


def test_json_holds_the_same_figures(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([*arguments, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["ways"]["… auto"]["figures"]["English"]["MRR@10"] == 0.75
    assert told["compared"]["short"]["fused − words"]["p"] == 1
    assert told["models"]["reranker"] == {"name": "standin-reranker", "release": "standin-reranker-1"}


def test_a_box_without_the_labelled_documents_is_not_measured(standin: StandinBox, arguments: list[str]) -> None:
    del standin.documents["keys-ko-01"]
    with pytest.raises(DemoError, match=r"lacks 1 of the 2 labelled documents \(keys-ko-01 .*onebox ingest"):
        evaluate.main(arguments)
    assert not standin.searches


def test_a_recorded_run_is_appended_under_its_commit(arguments: list[str], checkout: Path) -> None:
    file = checkout / "runs.md"
    file.write_text("# Runs\n")
    for _ in range(2):
        evaluate.main([*arguments, "--record", str(file)])
    commit = git(checkout, "rev-parse", "--short=12", "HEAD").strip()
    headings = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert len(headings) == 2
    assert all(line.endswith(f", commit {commit}") for line in headings)
    assert "reranker standin-reranker-1" in file.read_text(encoding="utf-8")


def test_a_run_of_changed_code_says_so(arguments: list[str], checkout: Path) -> None:
    (checkout / "demo" / "evaluate.py").write_text("other code\n")
    evaluate.main([*arguments, "--record", str(checkout / "runs.md")])
    assert "with uncommitted changes\n" in (checkout / "runs.md").read_text(encoding="utf-8")


def test_a_run_cannot_be_recorded_without_a_commit(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "evaluate.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(DemoError, match=r"--record .* needs a git checkout"):
        evaluate.main([*arguments, "--record", str(tmp_path / "runs.md")])
    assert not (tmp_path / "runs.md").exists()


def test_tuning_prints_what_the_inventory_takes(
    standin: StandinBox, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([*arguments, "--tune"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # The stand-in's reranker changes nothing, so that any lead will do: the least there is, of "doors".
    assert lines[-2:] == [
        "stack_rerank_auto_margins:",
        "  - {reranker: standin-reranker, embedding: standin-embedding, margin: 0.000}",
    ]
    assert {search["rerank"] for search in standin.searches} == {"off", "always"}


def test_nothing_is_tuned_on_what_is_held_out(standin: StandinBox, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.main(["--url", standin.url, "--tune", "--queries", str(evaluate.HELD_OUT)])
    assert "nothing is tuned on it" in capsys.readouterr().err
    assert not standin.searches
