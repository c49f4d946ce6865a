"""What the operator sees while a stage works."""

import sys
import time

_START = time.monotonic()


def say(stage: str, text: str) -> None:
    """One line on stderr, with the seconds since the process began."""
    print(f"[{time.monotonic() - _START:6.1f}s] {stage}: {text}", file=sys.stderr, flush=True)
