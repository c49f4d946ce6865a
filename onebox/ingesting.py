"""Sends documents in batches and waits until they can be found. Running it again costs nothing for what is there."""

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from onebox.client import Box, Job, OneboxError, RefusedError
from onebox.files import File
from onebox.formats import Reading, read
from onebox.progress import Progress
from onebox.records import Document, Origin, Problem

BATCH_BYTES = 2 * 1024 * 1024
BATCH_DOCUMENTS = 200
POLL_S = 0.25
# What the box says of a batch from which some lines may yet be taken when it is sent in parts.
DIVISIBLE = ("body_too_large", "too_many", "invalid_lines")


@dataclass
class Outcome:
    """Counts of documents. `refused` never got into the box, `failed` did and could not be indexed."""

    sent: int = 0
    unchanged: int = 0
    refused: int = 0
    failed: int = 0
    jobs: list[str] = field(default_factory=list)


@dataclass
class _Batch:
    lines: list[bytes] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.lines) >= BATCH_DOCUMENTS or sum(map(len, self.lines)) >= BATCH_BYTES

    def halves(self) -> tuple["_Batch", "_Batch"]:
        half = len(self.lines) // 2
        return _Batch(self.lines[:half], self.origins[:half]), _Batch(self.lines[half:], self.origins[half:])


class _Origins:
    """Where each document came from, on disk: there may be millions."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        self._database.execute("CREATE TABLE origins (id TEXT PRIMARY KEY, origin TEXT) WITHOUT ROWID")

    def add(self, identity: str, origin: Origin) -> str | None:
        """The origin of an earlier document with the same id."""
        try:
            self._database.execute("INSERT INTO origins VALUES (?, ?)", [identity, str(origin)])
        except sqlite3.IntegrityError:
            return self.find(identity)
        return None

    def find(self, identity: str) -> str:
        row = self._database.execute("SELECT origin FROM origins WHERE id = ?", [identity]).fetchone()
        return str(row[0]) if row else identity

    def close(self) -> None:
        self._database.close()


class Ingestion:
    """One run: `send` everything, then `wait` for the worker."""

    def __init__(self, box: Box, progress: Progress, metadata: dict[str, Any]) -> None:
        self.outcome = Outcome()
        self._box = box
        self._progress = progress
        self._metadata = metadata
        self._origins = _Origins()

    def send(self, files: Iterable[File], reading: Reading) -> None:
        """Every document of the files. What is none, or is refused, is told and counted, and the others go on."""
        batch = _Batch()
        for entry in self._entries(files, reading):
            line = self._line(entry) if isinstance(entry, Document) else None
            if isinstance(entry, Problem):
                self._refuse(str(entry.origin), entry.reason)
            elif line is not None:
                batch.lines.append(line)
                batch.origins.append(entry.origin)
            if batch.full:
                self._send(batch)
                batch = _Batch()
        if batch.lines:
            self._send(batch)

    def wait(self, patience_s: float) -> None:
        """Until every job is finished. OneboxError when nothing moves for `patience_s`."""
        finished = 0
        moved = time.monotonic()
        last: Job | None = None
        for number, job_id in enumerate(self.outcome.jobs):
            while True:
                job = self._box.job(job_id)
                if job != last:
                    last, moved = job, time.monotonic()
                self._progress.indexed(finished + job.done)
                if job.finished:
                    break
                if time.monotonic() - moved > patience_s:
                    raise OneboxError(
                        f"nothing was indexed for {patience_s:.0f} s; {len(self.outcome.jobs) - number} jobs are not "
                        f"finished, the first is {job_id}. Is the worker running? See `docker compose logs worker` on "
                        "the box. What was sent stays there: run this again to see it through"
                    )
                time.sleep(POLL_S)
            finished += job.done
            self.outcome.unchanged += job.unchanged
            self.outcome.failed += len(job.failures)
            for identity, reason in job.failures.items():
                self._progress.problem(self._origins.find(identity), f"given up: {reason}")

    def close(self) -> None:
        self._origins.close()

    def _entries(self, files: Iterable[File], reading: Reading) -> Iterator[Document | Problem]:
        for file in files:
            yield from read(file, reading, self._progress.read)

    def _line(self, document: Document) -> bytes | None:
        """The document as it is sent; None if it cannot be."""
        try:
            line = document.line(self._metadata)
            earlier = self._origins.add(document.id, document.origin)
        except UnicodeEncodeError:
            reason = "its name or a field holds half a character (a surrogate), which is not text"
            self._refuse(str(document.origin), reason)
            return None
        if earlier is not None:
            self._refuse(str(document.origin), f"has the id {document.id!r} of {earlier}")
            return None
        return line

    def _send(self, batch: _Batch) -> None:
        try:
            submission = self._box.submit(batch.lines)
        except RefusedError as error:
            if error.code in DIVISIBLE and len(batch.lines) > 1:
                for half in batch.halves():
                    self._send(half)
            elif error.code in DIVISIBLE:
                self._refuse(str(batch.origins[0]), error.reason.removeprefix("1."))
            else:
                raise
            return
        for number, reason in submission.refused.items():
            self._refuse(str(batch.origins[number - 1]), reason.removeprefix(f"{number}."))
        self.outcome.jobs.append(submission.job)
        self.outcome.sent += len(batch.lines) - len(submission.refused)
        self._progress.sent(self.outcome.sent)

    def _refuse(self, origin: str, reason: str) -> None:
        self.outcome.refused += 1
        self._progress.problem(origin, reason)


@contextlib.contextmanager
def ingestion(box: Box, progress: Progress, metadata: dict[str, Any]) -> Iterator[Ingestion]:
    run = Ingestion(box, progress, metadata)
    with contextlib.closing(run), progress:
        yield run
