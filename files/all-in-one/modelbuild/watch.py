"""A build's log, and how somebody else follows it: the builder holds an flock on it for as long as it lives."""

import fcntl
import sys
import threading
import time
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError

KEPT = 10
APPEARS = 20.0  # seconds that a builder may take to start
POLL = 0.2


class Log:
    """Lines for people: to stderr and, where there is one, to the log file. Threads may share it."""

    def __init__(self, file: Path | None) -> None:
        self._stream = None
        self._guard = threading.Lock()
        self.last = time.monotonic()
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            # It has its name only once it is locked: who follows it never takes a build that starts for one that ended.
            partial = file.with_suffix(".partial")
            self._stream = partial.open("w", encoding="utf-8")
            fcntl.flock(self._stream, fcntl.LOCK_EX)
            partial.rename(file)
            _drop_old(file)

    @property
    def descriptor(self) -> int:
        """Of the log file; a process that has it open is part of what is followed. ValueError without a file."""
        if self._stream is None:
            raise ValueError("there is no log file")
        return self._stream.fileno()

    def line(self, text: str) -> None:
        with self._guard:
            self.last = time.monotonic()
            # The log first: what stderr has shown, who follows the log sees too.
            if self._stream:
                print(text, file=self._stream, flush=True)
            print(text, file=sys.stderr, flush=True)


def _drop_old(file: Path) -> None:
    logs = sorted(file.parent.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in logs[KEPT:]:
        old.unlink()
        old.with_suffix(".seen").unlink(missing_ok=True)


def watch(file: Path, seconds: float) -> dict[str, Any]:
    """{"lines", "finished"}: what is new since the last call, waiting up to `seconds` for it or for the end."""
    deadline = time.monotonic() + APPEARS
    while not file.is_file():
        if time.monotonic() > deadline:
            raise BuildError(f"{file} did not appear within {APPEARS:.0f} s: the build did not start.")
        time.sleep(POLL)
    seen = file.with_suffix(".seen")
    offset = int(seen.read_text()) if seen.is_file() else 0
    deadline = time.monotonic() + seconds
    while True:
        # Asked first: what is written after it is seen by the next call, and what was written before it by this one.
        finished = _is_free(file)
        lines, end = _read(file, offset)
        if lines or finished or time.monotonic() >= deadline:
            seen.write_text(str(end))
            return {"changed": False, "lines": lines, "finished": finished}
        time.sleep(POLL)


def _read(file: Path, offset: int) -> tuple[list[str], int]:
    with file.open("rb") as stream:
        stream.seek(offset)
        content = stream.read()
    whole = content[: content.rfind(b"\n") + 1]
    return whole.decode("utf-8", "replace").splitlines(), offset + len(whole)


def _is_free(file: Path) -> bool:
    with file.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
