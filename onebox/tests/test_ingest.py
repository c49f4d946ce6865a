"""Ingestion sends everything in batches, waits for it, and says what changed and what could not be taken."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from onebox import ingesting
from onebox.client import OneboxError
from onebox.command import main
from onebox.progress import Progress
from onebox.tests.standin import StandinBox

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "demo" / "corpus" / "passages.jsonl"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    return folder


def write_records(path: Path, *records: dict[str, str]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


def test_the_whole_corpus_arrives_in_batches(
    standin: StandinBox,
    box_arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ingesting, "BATCH_DOCUMENTS", 50)
    assert main(["ingest", str(CORPUS), *box_arguments]) == 0
    assert len(standin.documents) == 186
    assert [len(job["documents"]) for job in standin.jobs.values()] == [50, 50, 50, 36]
    assert standin.documents["returns-ko-01"]["metadata"] == {"language": "ko", "topic": "returns"}
    captured = capsys.readouterr()
    assert captured.out == "186 documents in the box, 186 new or changed\n"
    assert captured.err == ""


def test_the_same_again_changes_nothing(
    standin: StandinBox, box_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["ingest", str(CORPUS), *box_arguments])
    main(["ingest", str(CORPUS), *box_arguments])
    assert capsys.readouterr().out.splitlines()[-1] == "186 documents in the box, nothing changed"


def test_metadata_for_all_and_what_is_left_out(
    standin: StandinBox, box_arguments: list[str], docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (docs / "a.txt").write_text("글")
    (docs / "a.pdf").write_text("x")
    main(["ingest", str(docs), "--metadata", "shelf=2", "--metadata", "name=a=b", *box_arguments])
    assert standin.documents["docs/a.txt"]["metadata"] == {"shelf": 2, "name": "a=b"}
    assert "left out, being of another kind: 1 .pdf" in capsys.readouterr().err


def test_what_the_box_refuses_is_told_with_its_file_and_line_and_the_rest_goes_on(
    standin: StandinBox, box_arguments: list[str], docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_records(docs / "a.jsonl", {"text": "good"}, {"text": "dup", "id": "x"}, {"text": "again", "id": "x"})
    with path.open("a") as lines:
        lines.write("\n{broken\n")
    (docs / "b.md").write_text("# \x00")
    assert main(["ingest", str(docs), *box_arguments]) == 1
    captured = capsys.readouterr()
    assert f"{path}:3: has the id 'x' of {path}:2\n" in captured.err
    assert f"{path}:4: is not JSON" in captured.err
    assert captured.out == "3 documents in the box, 3 new or changed, 2 refused\n"


def test_a_batch_with_refused_lines_tells_each(
    standin: StandinBox, box_arguments: list[str], docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("a.txt", "good"), ("b.txt", "bad"), ("c.txt", "bad too")):
        (docs / name).write_text(text)
    standin.refuse = {"bad", "bad too"}
    assert main(["ingest", str(docs), *box_arguments]) == 1
    captured = capsys.readouterr()
    assert f"{docs}/b.txt: text is empty.\n{docs}/c.txt: text is empty.\n" in captured.err
    (docs / "a.txt").unlink()
    assert main(["ingest", str(docs), *box_arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("text is empty.") == 2
    assert captured.out == "0 documents in the box, nothing changed, 2 refused\n"


def test_a_box_that_takes_less_at_once_gets_less(
    standin: StandinBox, box_arguments: list[str], docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.largest_body = 2000
    write_records(docs / "a.jsonl", *({"text": "x" * 500} for _ in range(20)), {"text": "y" * 5000})
    assert main(["ingest", str(docs), *box_arguments]) == 1
    assert len(standin.documents) == 20
    captured = capsys.readouterr()
    assert f"{docs}/a.jsonl:21: the body is too large\n" in captured.err


def test_documents_that_were_given_up_are_told_with_their_files(
    standin: StandinBox, box_arguments: list[str], docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (docs / "a.txt").write_text("heavy")
    (docs / "b.txt").write_text("light")
    standin.fail = {"docs/a.txt": "the embedder ran out of memory"}
    assert main(["ingest", str(docs), *box_arguments]) == 1
    captured = capsys.readouterr()
    assert f"{docs}/a.txt: given up: the embedder ran out of memory\n" in captured.err
    assert captured.out == "1 documents in the box, 1 new or changed, 1 given up\n"


def test_a_worker_that_does_nothing_is_not_waited_for_forever(standin: StandinBox, box_arguments: list[str]) -> None:
    standin.stuck = True
    with pytest.raises(OneboxError, match=r"nothing was indexed .*the first is job-1\. .*logs worker"):
        main(["ingest", str(CORPUS), "--patience", "0.05", *box_arguments])


def test_without_waiting_the_last_job_is_named(
    standin: StandinBox, box_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    standin.stuck = True
    assert main(["ingest", str(CORPUS), "--no-wait", *box_arguments]) == 0
    assert capsys.readouterr().out == "186 documents sent; the last job is job-1\n"
    assert main(["job", "job-1", *box_arguments]) == 0
    assert capsys.readouterr().out == "running: 0 of 186 documents, 0 of them unchanged\n"


def test_a_dry_run_prints_the_documents_and_sends_nothing(standin: StandinBox, docs: Path) -> None:
    (docs / "a.txt").write_text("글")
    (docs / "b.txt").write_text(" ")
    finished = subprocess.run(
        [sys.executable, "-m", "onebox", "ingest", str(docs), "--dry-run", "--url", standin.url],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert finished.returncode == 1
    assert json.loads(finished.stdout)["id"] == "docs/a.txt"
    assert finished.stderr == f"{docs}/b.txt: there is no text in it\n"
    assert not standin.documents


def test_nothing_to_ingest_is_an_error(docs: Path) -> None:
    with pytest.raises(OneboxError, match="nothing to ingest at"):
        main(["ingest", str(docs)])


def test_a_terminal_sees_bars_and_problems_above_them() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with Progress(1000, console) as progress:
        progress.read(500)
        progress.sent(10)
        progress.problem("docs/a.txt", "is [broken]")
        progress.indexed(4)
    shown = out.getvalue()
    assert "docs/a.txt: is [broken]" in shown
    assert "10 documents" in shown and "4 of 10 documents" in shown and "50%" in shown
