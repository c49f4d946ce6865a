"""Part `memory`: does the engine keep to its size whatever lengths it meets?"""

from typing import Any

from bench import processes
from bench.box import Box
from bench.embedders import Onebox
from bench.inputs import Inputs
from bench.processes import Worker
from bench.texts import describe
from modelbuild.progress import say

EARLY, LATE, STEP = 1_000, 20_000, 1_000


def measure(box: Box, inputs: Inputs, rounds: int) -> dict[str, Any]:
    """Resident memory of a fresh process: loaded, after 1,000 texts, after 20,000 that have every length."""
    texts = inputs.many(LATE)
    found: dict[str, Any] = {"lengths": describe([inputs.maker.tokens(text) for text in texts])}
    with Worker(Onebox, environment=box.allocator(), release=box.embedding) as worker:
        found["loaded"] = worker.do(processes.resident)
        for start in range(0, LATE, STEP):
            worker.do(processes.embed_only, texts[start : start + STEP])
            if start + STEP in (EARLY, LATE):
                found[f"after_{start + STEP}"] = worker.do(processes.resident)
            if (start + STEP) % (5 * STEP) == 0:
                say("memory", f"{start + STEP} of {LATE} texts, {worker.do(processes.resident)['rss_mb']:.0f} MB")
        found["peak_mb"] = worker.do(processes.peak)
    found["growth"] = round(found[f"after_{LATE}"]["rss_mb"] / found[f"after_{EARLY}"]["rss_mb"] - 1, 4)
    return found
