"""Part `products`: what a short query's quantised products cost by themselves, whatever is around them.

All of them once, one after the other, as a query needs them: the cache of a shared machine does not hold all their
weights until the next query. And a few of each shape again and again, whose weights stay in the cache.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.box import Box, manifest
from bench.inputs import Inputs
from bench.processes import Worker
from bench.system import timed
from modelbuild.progress import say

TOKENS = 10
FEW = 4  # products of one shape
RUNS, WARM_UP = 60, 10  # a round
READ = 256 << 20  # bytes
QUANTISED_PRODUCTS = ("MatMulInteger", "QAttention")
Weights = np.ndarray[Any, Any]


def measure(box: Box, inputs: Inputs, rounds: int) -> dict[str, Any]:
    """By number of threads: milliseconds of the products, and gigabytes a second that are read. {} without any."""
    weights = quantised_weights(box.embedding / manifest(box.embedding)["file"])
    if not weights:
        say("products", "the release is not quantised: nothing to measure")
        return {}
    folder = box.work / "products"
    folder.mkdir(parents=True, exist_ok=True)
    write_products(weights, folder)
    shapes = [tuple(array.shape) for array in weights]
    found: dict[str, Any] = {}
    with Worker(Products, environment=box.allocator(), folder=folder, shapes=shapes) as worker:
        for threads in thread_counts():
            turns = [worker.do(time_products, threads) for _ in range(rounds)]
            found[str(threads)] = {name: round(median(turn[name] for turn in turns), 2) for name in turns[0]}
    told = ", ".join(f"{took['all_ms']} ms with {threads}" for threads, took in found.items())
    say("products", f"of {TOKENS} tokens, by threads: {told}")
    return {"tokens": TOKENS, "weights_mb": round(sum(array.nbytes for array in weights) / 1e6, 1), "threads": found}


def quantised_weights(model_file: Path) -> list[Weights]:
    """[input channels, output channels] of every quantised product of a graph, in its order."""
    import onnx  # noqa: PLC0415
    from onnx import numpy_helper  # noqa: PLC0415

    graph = onnx.load(str(model_file)).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    names = [node.input[1] for node in graph.node if node.op_type in QUANTISED_PRODUCTS]
    return [numpy_helper.to_array(constants[name]) for name in names if name in constants]


def write_products(weights: list[Weights], folder: Path) -> None:
    """FOLDER/all.onnx, and for each shape one product (one-SHAPE.onnx) and FEW more than that (few-SHAPE.onnx)."""
    _write(folder / "all.onnx", weights)
    for shape in {array.shape for array in weights}:
        first = next(array for array in weights if array.shape == shape)
        _write(folder / f"one-{_named(shape)}.onnx", [first])
        _write(folder / f"few-{_named(shape)}.onnx", [first] * (1 + FEW))


def _write(file: Path, weights: list[Weights]) -> None:
    """A graph that multiplies an input of as many channels with each of the weights."""
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    nodes, constants, outputs = [], [], []
    for index, array in enumerate(weights):
        columns = array.shape[1]
        values = (array, np.full(columns, 0.01, np.float32), np.zeros(columns, array.dtype))
        names = [f"{name}_{index}" for name in ("weights", "scales", "zeros")]
        constants += [numpy_helper.from_array(value, name) for name, value in zip(names, values, strict=True)]
        taken = [f"input_{array.shape[0]}", *names]
        nodes.append(helper.make_node("DynamicQuantizeMatMul", taken, [f"output_{index}"], domain="com.microsoft"))
        outputs.append(helper.make_tensor_value_info(f"output_{index}", TensorProto.FLOAT, [1, TOKENS, columns]))
    inputs = [
        helper.make_tensor_value_info(f"input_{rows}", TensorProto.FLOAT, [1, TOKENS, rows])
        for rows in sorted({array.shape[0] for array in weights})
    ]
    graph = helper.make_graph(nodes, "products", inputs, outputs, constants)
    # The versions that released graphs have.
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(file))


class Products:
    """The graphs of a folder, in sessions as the box opens them."""

    def __init__(self, folder: Path, shapes: list[tuple[int, ...]]) -> None:
        self.folder = folder
        self.counts = Counter(shapes)
        self._sessions: dict[tuple[str, int], Any] = {}

    def seconds(self, name: str, threads: int) -> float:
        """Median time of a run of NAME.onnx."""
        from pipeline.engine import open_session  # noqa: PLC0415

        session = self._sessions.get((name, threads))
        if session is None:
            session = self._sessions[name, threads] = open_session(self.folder / f"{name}.onnx", threads)
        random = np.random.default_rng(5)
        feed = {entry.name: random.standard_normal(entry.shape, dtype=np.float32) for entry in session.get_inputs()}
        return median([timed(lambda: session.run(None, feed)) for _ in range(WARM_UP + RUNS)][WARM_UP:])


def thread_counts() -> list[int]:
    from pipeline.threads import available_threads  # noqa: PLC0415

    return sorted({1, available_threads()})


def time_products(products: Products, threads: int) -> dict[str, float]:
    """{"few_ms": as long as all would take if their weights stayed in the cache, "all_ms", "read_gb_per_s"}."""
    few = 0.0
    for shape, count in products.counts.items():
        # The difference: what a run costs by itself is in both.
        one, more = (products.seconds(f"{name}-{_named(shape)}", threads) for name in ("one", "few"))
        few += count * (more - one) / FEW
    return {
        "few_ms": few * 1000,
        "all_ms": products.seconds("all", threads) * 1000,
        "read_gb_per_s": read_speed(threads),
    }


def read_speed(threads: int) -> float:
    """Gigabytes a second that so many cores read together, of more than a cache holds."""
    arrays = [np.ones(READ // 8 // threads) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        return READ / median(timed(lambda: list(pool.map(np.sum, arrays))) for _ in range(WARM_UP)) / 1e9


def _named(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
