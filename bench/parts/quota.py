"""Part `quota`: a container that may use one core of several must not be held back by its own threads."""

import json
import subprocess
from typing import Any

from bench.box import Box
from bench.inputs import Inputs
from modelbuild.progress import say

CPUS = 1
USER = "10001:10001"  # as compose runs the app


def measure(box: Box, inputs: Inputs, rounds: int) -> dict[str, Any]:
    """What bench.inside_quota prints: threads chosen, texts/s, and the share of the run it was throttled."""
    command = [
        "docker", "run", "--rm", "--interactive", f"--cpus={CPUS}", "--network=none", "--read-only", "--tmpfs=/tmp",
        f"--user={USER}", "--env=PYTHONPATH=/srv/onebox:/srv/code",
        f"--volume={box.deployment.resolve()}/pipeline:/srv/onebox/pipeline:ro",
        f"--volume={box.models}:/models:ro",
        f"--volume={box.code}/bench:/srv/code/bench:ro",
        box.image(), "python", "-m", "bench.inside_quota", "/models/emb",
    ]  # fmt: skip
    texts = json.dumps(inputs.mixed)
    done = subprocess.run(command, input=texts, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    told = f"{found['threads']} threads, throttled {found['throttled_share']:.1%} of {found['seconds']:.0f} s"
    say("quota", f"--cpus {CPUS}: {told}, {found['texts_per_s']:.0f} texts/s")
    return {"cpus": CPUS, **found}
