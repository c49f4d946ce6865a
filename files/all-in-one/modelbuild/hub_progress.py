"""How a download comes along: a line every few seconds, also while nothing arrives."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelbuild.progress import say

EVERY = 5.0  # seconds


@contextmanager
def shown(folder: Path, total: int) -> Iterator[None]:
    """While the body fills `folder` with `total` bytes, say how many are there and how fast they come."""
    done = threading.Event()
    thread = threading.Thread(target=_tell, args=(folder, total, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tell(folder: Path, total: int, done: threading.Event) -> None:
    before, since = _size(folder), time.monotonic()
    while not done.wait(EVERY):
        now, here = time.monotonic(), _size(folder)
        rate = (here - before) / (now - since)
        say("fetch", f"{here / 1e6:.0f} of {total / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s")
        before, since = here, now


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue  # renamed in between
    return total
