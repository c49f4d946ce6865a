"""A file whose age tells whether the worker still gets anywhere."""

import time
from pathlib import Path

FRESH = 90.0  # seconds: several slices of the slowest model


def beat(file: Path) -> None:
    file.touch()


def age(file: Path) -> float | None:
    """Seconds since the last beat, None before the first."""
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return None
