"""What the operator sees of a stage at work."""

import sys
from collections.abc import Mapping


def say(stage: str, text: str) -> None:
    """One line on stderr. Whoever shows it has a clock."""
    print(f"{stage}: {text}", file=sys.stderr, flush=True)


def in_words(figures: Mapping[str, object]) -> str:
    """Figures by name, for a line that people read."""
    return ", ".join(f"{name} {value}" for name, value in figures.items())
