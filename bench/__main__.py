"""`python -m bench`: measure on this VM, and write results.json, table.md and plot.svg. Progress goes to a log file."""

import argparse
import datetime
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import report
from bench.box import Box, manifest
from bench.inputs import Inputs, make_inputs
from bench.parts import identity, index, memory, methods, over_http, products, quota, rerank
from bench.system import cpu_ticks, machine, stolen
from modelbuild.progress import say
from modelbuild.watch import Log

PARTS: dict[str, Callable[[Box, Inputs, int], dict[str, Any]]] = {
    "methods": methods.measure,
    "products": products.measure,
    "rerank": rerank.measure,
    "identity": identity.measure,
    "memory": memory.measure,
    "quota": quota.measure,
    "box": over_http.measure,
    "index": index.measure,
}
# The last takes as long as the others together: it is measured when it is asked for.
USUAL = [name for name in PARTS if name != "index"]


def main() -> int:
    options = _parser().parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.log:
        # Whoever follows the log sees what every process of this run says, and that it goes on while one lives.
        log = Log(options.log)
        os.dup2(log.descriptor, sys.stderr.fileno())
    here = Path(__file__).resolve().parents[1]
    box = Box(options.deployment, options.models_dir, options.cache_dir, options.state_dir, here, options.work_dir)
    results = measure(box, options.parts, options.rounds)
    (options.out / "results.json").write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    (options.out / "table.md").write_text(report.markdown(results))
    report.plot(results, options.out / "plot.svg")
    print(json.dumps({"changed": True, "table": report.markdown(results).splitlines()}, ensure_ascii=False))
    return 0


def measure(box: Box, parts: list[str], rounds: int) -> dict[str, Any]:
    """The figures of the parts asked for, with what they were measured on and with."""
    inputs = make_inputs(box)
    ticks = cpu_ticks()
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine() | {"allocator": " ".join(f"{name}={value}" for name, value in box.allocator().items())},
        "models": {name: _described(folder) for name, folder in (("emb", box.embedding), ("rerank", box.reranker))},
        "inputs": inputs.described(),
    }
    for name in parts:
        say("bench", f"{name}: started")
        results[name] = PARTS[name](box, inputs, rounds)
    results["machine"]["stolen_share"] = stolen(ticks, cpu_ticks())
    return results


def _described(folder: Path) -> dict[str, Any]:
    stated = manifest(folder)
    return {"id": stated["id"], "recipe": stated["recipe"]["name"], "gate": stated["gate"], "speed": stated["speed"]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--deployment", type=Path, default=Path("/opt/onebox/current"), help="default: %(default)s")
    parser.add_argument("--models-dir", type=Path, default=Path("/opt/models"), help="default: %(default)s")
    parser.add_argument("--cache-dir", type=Path, default=Path("/var/cache/onebox"), help="default: %(default)s")
    parser.add_argument("--state-dir", type=Path, default=Path("/var/lib/onebox"), help="default: %(default)s")
    parser.add_argument("--work-dir", type=Path, required=True, help="keeps the original's graphs between runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json, table.md and plot.svg")
    parser.add_argument("--log", type=Path, help="also write what is said to this file")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each method (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=USUAL, help="default: all but index")
    return parser


if __name__ == "__main__":
    sys.exit(main())
