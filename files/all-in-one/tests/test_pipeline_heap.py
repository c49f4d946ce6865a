"""Memory that a run freed stays with the process for the next run, within bounds."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

WIDTH, BETWEEN, TOKENS, PARTS, RUNS = 64, 1024, 128, 8, 20
PAYLOAD = Path(__file__).parents[1]
# Prints the pages that were faulted in per run, once the first runs are over.
MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
import pipeline.engine
if sys.argv[2] == "default":
    pipeline.engine.keep_freed_memory = lambda: False
session = pipeline.engine.open_session(Path(sys.argv[1]))
feed = {"input_ids": np.arange(int(sys.argv[3]))[None, :]}
def faults(runs):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(runs):
        session.run(None, feed)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(30)
print(faults(int(sys.argv[4])) // int(sys.argv[4]))
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that holds several large tensors at once, as a text model does."""
    random = np.random.default_rng(0)
    weights = {
        "table": random.normal(size=(TOKENS, WIDTH)),
        "up": random.normal(size=(WIDTH, BETWEEN)),
        "down": random.normal(size=(BETWEEN, WIDTH)),
    }
    parts = [f"part_{number}" for number in range(PARTS)]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["hidden"]),
        *(helper.make_node("MatMul", ["hidden", "up"], [part]) for part in parts),
        helper.make_node("Sum", parts, ["sum"]),
        helper.make_node("MatMul", ["sum", "down"], ["output"]),
    ]
    body = helper.make_graph(
        nodes,
        "parts",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, "tokens", WIDTH])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    file = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return file


def faults(graph: Path, settings: str) -> int:
    command = [sys.executable, "-c", MEASURE, str(graph), settings, str(TOKENS), str(RUNS)]
    # The threshold that every process begins with. Left alone it grows with what is freed, sooner or later.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 << 10)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=PAYLOAD, env=environment)
    return int(done.stdout)


def test_a_run_takes_no_fresh_pages_where_the_last_one_freed_as_many(graph: Path) -> None:
    activations = TOKENS * BETWEEN * 4 // 4096  # pages of one of the large tensors
    assert faults(graph, "kept") < activations // 10
    assert faults(graph, "default") > activations
