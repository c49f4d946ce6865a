"""How much memory a model takes, known from its files before it is loaded."""

import filecmp
import math
from collections.abc import Iterable
from pathlib import Path

from pipeline import cgroup

# Resident bytes by the bytes of the files, rounded up. Measured: 115 MB for a tokenizer.json of 17 MB, 160 MB beside it
# for the 118 MB of e5-small in INT8 at work, 24 of them for the session that all threads share, and 200 MB without that
# one for a float model of 470 MB, most of which stayed in its file.
TOKENIZER = 8.0
WEIGHTS = 1.25
WORK = 32 << 20  # for activations
# What the processes take without their models: libraries 100 MB, the morphological analyser 200 MB, requests.
APP = 400 << 20
WORKER = 340 << 20


def of(folder: Path, beside: Iterable[Path] = ()) -> int:
    """Bytes that a model in `folder`, a release or a bare folder, takes once it is loaded; 0 if there is none.

    Models `beside` it in the process share its tokenizer where the files are equal.
    """
    folder = _folder(folder)
    tokenizer = folder / "tokenizer.json"
    weights = sum(path.stat().st_size for path in folder.glob("*.onnx*"))
    if not weights or not tokenizer.is_file():
        return 0
    size = without_tokenizer(weights)
    if any(_equal(tokenizer, _folder(other) / "tokenizer.json") for other in beside):
        return size
    return size + int(tokenizer.stat().st_size * TOKENIZER)


def without_tokenizer(weights: int) -> int:
    """Bytes that a model with files of `weights` bytes takes in a process that has its tokenizer already."""
    return int(weights * WEIGHTS) + WORK


def lacks(folder: Path, beside: Iterable[Path] = ()) -> str | None:
    """A sentence, where this process's container has no room for another model; None where it has, or has no limit."""
    memory = cgroup.memory()
    if memory is None or memory.limit is None:
        return None
    needed, free = of(folder, beside), memory.limit - memory.used
    if needed <= free:
        return None
    return f"it needs about {megabytes(needed)} MB, and {max(0, megabytes(free))} MB of the container's are free."


def megabytes(size: int) -> int:
    return math.ceil(size / (1 << 20))


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _equal(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)
