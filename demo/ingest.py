"""Hands the sample corpus to a box and waits until every passage can be found.

Run as `python demo/ingest.py --url http://127.0.0.1:8000 --key-file KEY`.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from client import Box, DemoError, Job, add_box_arguments, box_of, read_jsonl, run

PASSAGES = Path(__file__).parent / "corpus" / "passages.jsonl"
SOURCE = "demo/corpus"
BATCH = 50
POLL_S = 0.25
LINE_EVERY_S = 1.0


class Progress:
    """One line that is rewritten every second on a terminal; a line for every quarter elsewhere."""

    def __init__(self, total: int, out: TextIO) -> None:
        self._total = total
        self._out = out
        self._rewrites = out.isatty()
        self._started = time.monotonic()
        self._last_line = float("-inf")
        self._quarters = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def show(self, done: int) -> None:
        line = f"ingest  {done}/{self._total} passages  {self.seconds:.0f} s"
        if self._rewrites:
            if self.seconds - self._last_line >= LINE_EVERY_S:
                self._last_line = self.seconds
                self._out.write(f"\r{line}\033[K")
        elif done * 4 // self._total > self._quarters:
            self._quarters = done * 4 // self._total
            self._out.write(f"{line}\n")
        self._out.flush()

    def end(self, line: str) -> None:
        self._out.write(f"\r\033[K{line}\n" if self._rewrites else f"{line}\n")
        self._out.flush()


def document_of(passage: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": passage["id"],
        "title": passage["title"],
        "text": passage["text"],
        "source": SOURCE,
        "metadata": {"language": passage["language"], "topic": passage["topic"]},
    }


def documents_of(corpus: Path) -> list[dict[str, Any]]:
    passages = read_jsonl(corpus)
    for number, passage in enumerate(passages, 1):
        missing = {"id", "title", "text", "language", "topic"} - set(passage)
        if missing:
            raise DemoError(f"{corpus}, passage {number} ({passage.get('id', 'no id')}) lacks {sorted(missing)}")
    return [document_of(passage) for passage in passages]


def wait(box: Box, job_ids: list[str], progress: Progress, patience_s: float) -> list[Job]:
    """Polls until every job is finished; a failed job or the end of patience raises DemoError."""
    jobs: dict[str, Job] = {}
    while True:
        for job_id in job_ids:
            if job_id not in jobs or not jobs[job_id].finished:
                jobs[job_id] = box.job(job_id)
                if jobs[job_id].status == "failed":
                    raise DemoError(f"ingestion job {job_id} failed: {jobs[job_id].error or 'the box gave no reason'}")
        progress.show(sum(job.done for job in jobs.values()))
        if all(job.finished for job in jobs.values()):
            return list(jobs.values())
        if progress.seconds > patience_s:
            open_jobs = ", ".join(job.id for job in jobs.values() if not job.finished)
            raise DemoError(
                f"after {patience_s:.0f} s these jobs are not finished: {open_jobs}. Is the worker running? "
                "See `docker compose logs worker` on the box; what is done stays done, so just run this again"
            )
        time.sleep(POLL_S)


def ingest(box: Box, documents: list[dict[str, Any]], batch: int, patience_s: float, out: TextIO) -> int:
    """Ingests everything, tells `out`, and returns how many documents the box did not hold before."""
    progress = Progress(len(documents), out)
    job_ids = [box.submit(documents[start : start + batch]) for start in range(0, len(documents), batch)]
    jobs = wait(box, job_ids, progress, patience_s)
    changed = sum(job.documents - job.unchanged for job in jobs)
    told = f"{changed} new or changed" if changed else "nothing changed"
    progress.end(f"{len(documents)} passages in the box, {told}, {progress.seconds:.1f} s")
    return changed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ingest the sample corpus and wait until it can be searched.")
    add_box_arguments(parser)
    parser.add_argument(
        "--corpus", type=Path, default=PASSAGES, metavar="FILE", help="passages, one JSON object a line"
    )
    parser.add_argument("--batch", type=int, default=BATCH, help="documents a request (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=900, metavar="SECONDS", help="give up after (default: 900)")
    arguments = parser.parse_args(argv)
    if arguments.batch < 1:
        parser.error(f"--batch {arguments.batch}: expected 1 or more")
    ingest(box_of(arguments), documents_of(arguments.corpus), arguments.batch, arguments.patience, sys.stdout)
    return 0


if __name__ == "__main__":
    run(main)
