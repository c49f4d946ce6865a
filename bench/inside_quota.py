"""Runs inside the app's image: `python -m bench.inside_quota RELEASE`, texts as a JSON list on standard input."""

import json
import os
import sys
import time
from pathlib import Path

from bench.system import cpu_seconds, read_throttling
from pipeline.embedder import Embedder

LEAST_SECONDS = 20.0


def main() -> None:
    """Embed the texts again and again, and print one JSON object."""
    texts = json.load(sys.stdin)
    embedder = Embedder(Path(sys.argv[1]))
    before, cpu, start = read_throttling(), cpu_seconds(), time.perf_counter()
    count = 0
    while time.perf_counter() - start < LEAST_SECONDS:
        embedder.encode_array(texts, input_type="passage")
        count += len(texts)
    seconds, after = time.perf_counter() - start, read_throttling()
    print(
        json.dumps(
            {
                "threads": embedder.engine.lanes.threads,
                "cores_visible": os.cpu_count(),
                "seconds": round(seconds, 2),
                "cpu_seconds": round(cpu_seconds() - cpu, 2),
                "texts_per_s": round(count / seconds, 2),
                "throttled_share": round((after.seconds - before.seconds) / seconds, 4),
                "periods": after.periods - before.periods,
                "throttled_periods": after.throttled - before.throttled,
            }
        )
    )


if __name__ == "__main__":
    main()
