"""Part `index`: searches of 100,000 chunks in a database of their own, beside the one that serves."""

import json
import os
import subprocess
from typing import Any

from bench.box import Box
from bench.inputs import Inputs
from bench.parts.quota import USER
from modelbuild.progress import say

CHUNKS = 100_000
NETWORK = "onebox_default"  # as compose names the project's


def measure(box: Box, inputs: Inputs, rounds: int) -> dict[str, Any]:
    """What bench.inside_index prints: index build, sizes, recall, and latency of searches without reranking."""
    kept = box.work / "vectors"
    kept.mkdir(parents=True, exist_ok=True)
    os.chown(kept, *map(int, USER.split(":")))
    command = [
        "docker", "run", "--rm", "--interactive", f"--network={NETWORK}", "--read-only", "--tmpfs=/tmp",
        f"--user={USER}", f"--env-file={box.deployment}/.env", "--env=PYTHONPATH=/srv/onebox:/srv/code",
        f"--volume={box.deployment.resolve()}/pipeline:/srv/onebox/pipeline:ro",
        f"--volume={box.models}:/models:ro",
        f"--volume={box.state}/secrets/postgres_password:/run/secrets/postgres_password:ro",
        f"--volume={box.code}/bench:/srv/code/bench:ro",
        f"--volume={kept}:/vectors",
        box.image(), "python", "-m", "bench.inside_index", str(CHUNKS), "/vectors",
    ]  # fmt: skip
    material = {"passages": inputs.material.passages, "queries": inputs.questions()}
    done = subprocess.run(command, input=json.dumps(material), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    told = f"search p95 {found['search']['p95_ms']:.0f} ms, recall {found['recall@100']:.3f}"
    say("index", f"{found['chunks']} chunks: {told}")
    return found
