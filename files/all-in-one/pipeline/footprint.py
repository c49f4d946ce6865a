"""How much memory a model takes, known from its files before it is loaded."""

import math
from pathlib import Path

from pipeline import cgroup

# Of the files' bytes; the largest moment is the load, when the file and the weights made of it are both there.
WEIGHTS = 2.0
TOKENIZER = 8.0
WORK = 96 << 20  # bytes for the activations of the longest inputs, one a thread
# What the processes take without their models: interpreter, libraries, the morphological analyser.
APP = 500 << 20
WORKER = 450 << 20


def of(folder: Path) -> int:
    """Bytes that a model in `folder`, a release or a bare folder, needs while it is loaded; 0 if there is none."""
    folder = folder if folder.is_dir() else folder.parent
    weights = sum(path.stat().st_size for path in folder.glob("*.onnx*"))
    tokenizer = folder / "tokenizer.json"
    if not weights or not tokenizer.is_file():
        return 0
    return int(weights * WEIGHTS + tokenizer.stat().st_size * TOKENIZER) + WORK


def lacks(folder: Path) -> str | None:
    """A sentence, where this process's container has no room for another model; None where it has, or has no limit."""
    memory = cgroup.memory()
    if memory is None or memory.limit is None:
        return None
    needed, free = of(folder), memory.limit - memory.used
    if needed <= free:
        return None
    return f"it needs about {_megabytes(needed)} MB, and {max(0, _megabytes(free))} MB of the container's are free."


def _megabytes(size: int) -> int:
    return math.ceil(size / (1 << 20))
