"""What the operator sees of a stage at work."""

import sys


def say(stage: str, text: str) -> None:
    """One line on stderr. Whoever shows it has a clock."""
    print(f"{stage}: {text}", file=sys.stderr, flush=True)
