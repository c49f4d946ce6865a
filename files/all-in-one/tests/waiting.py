"""Waiting for what other threads and processes do."""

import time
from collections.abc import Callable

PATIENCE = 60.0  # seconds


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once the condition holds. AssertionError when it does not within `seconds`."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.02)
