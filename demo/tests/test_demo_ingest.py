"""Ingestion posts the whole corpus in batches, waits for it, and says what changed."""

import io
import json
from pathlib import Path

import pytest

import ingest
from client import DemoError
from standin import StandinBox


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "POLL_S", 0.01)


def arguments(standin: StandinBox, key_file: Path) -> list[str]:
    return ["--url", standin.url, "--key-file", str(key_file)]


def test_the_whole_corpus_arrives_in_batches(
    standin: StandinBox, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ingest.main(arguments(standin, key_file)) == 0
    assert len(standin.documents) == 186
    assert [job["documents"] for job in standin.jobs.values()] == [50, 50, 50, 36]
    assert standin.documents["returns-ko-01"]["metadata"] == {"language": "ko", "topic": "returns"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("186 passages in the box, 186 new or changed, ")
    assert len(lines) <= 5
    assert not any("\r" in line for line in lines)


def test_the_same_corpus_again_changes_nothing(
    standin: StandinBox, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest.main(arguments(standin, key_file))
    ingest.main(arguments(standin, key_file))
    assert "186 passages in the box, nothing changed, " in capsys.readouterr().out.splitlines()[-1]


def test_a_terminal_sees_one_line_rewritten() -> None:
    out = Terminal()
    progress = ingest.Progress(100, out)
    for done in (10, 20, 30):  # within one second: drawn once
        progress.show(done)
    progress.end("done")
    assert out.getvalue() == "\ringest  10/100 passages  0 s\033[K\r\033[Kdone\n"


def test_a_failed_job_stops_with_the_boxs_reason(standin: StandinBox, key_file: Path) -> None:
    standin.fail_jobs_with = "document returns-ko-01: the embedder ran out of memory"
    with pytest.raises(DemoError, match="job job-1 failed: document returns-ko-01: the embedder"):
        ingest.main(arguments(standin, key_file))


def test_a_worker_that_does_nothing_is_not_waited_for_forever(standin: StandinBox, key_file: Path) -> None:
    standin.stuck = True
    with pytest.raises(DemoError, match=r"not finished: job-1, .*logs worker"):
        ingest.main([*arguments(standin, key_file), "--patience", "0.05"])


def test_a_passage_without_text_is_named_before_anything_is_sent(
    standin: StandinBox, key_file: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "passages.jsonl"
    corpus.write_text(json.dumps({"id": "x-1", "title": "X", "language": "en", "topic": "x"}) + "\n")
    with pytest.raises(DemoError, match=r"passage 1 \(x-1\) lacks \['text'\]"):
        ingest.main([*arguments(standin, key_file), "--corpus", str(corpus)])
    assert not standin.jobs
