"""A lane with all its threads at work."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.lanes import Lane


@contextmanager
def at_work(lane: Lane, sequences: int) -> Iterator[threading.Event]:
    """A job that keeps every thread of the lane until the event is set."""
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def work(_: int) -> int:
        begun.release()
        assert go_on.wait(30)
        return 1

    def run() -> None:
        with lane.job(sequences) as job:
            job.each(work, range(sequences))

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(lane.threads):
        assert begun.acquire(timeout=10)
    try:
        yield go_on
    finally:
        go_on.set()
        thread.join(30)
    assert not thread.is_alive()
