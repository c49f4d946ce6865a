"""Part `products`: what a short query's quantised products cost by themselves, whatever is around them.

The released graph's products, with random weights of the same shapes: each once, one after the other, as a query needs
them, so that their weights come from memory where the cache does not hold them all; and a few of them again and again,
whose weights stay in the cache.
"""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.box import Box, manifest
from bench.inputs import Inputs
from bench.processes import Worker
from modelbuild.progress import say

TOKENS = 10
CACHED = 4  # products of one shape whose weights stay in the cache of all cores
RUNS, WARM_UP = 100, 10
READ = 256 << 20  # bytes: more than any cache holds
QUANTISED_PRODUCTS = ("MatMulInteger", "QAttention")
Shape = tuple[int, int]  # input and output channels


def measure(box: Box, inputs: Inputs, rounds: int) -> dict[str, Any]:
    """Milliseconds by number of threads, megabytes of weights and gigabytes a second that are read; {} for floats."""
    shapes = product_shapes(box.embedding / manifest(box.embedding)["file"])
    if not shapes:
        say("products", "the release is not quantised: nothing to measure")
        return {}
    folder = box.work / "products"
    folder.mkdir(parents=True, exist_ok=True)
    with Worker(Products, environment=box.allocator(), shapes=shapes, folder=folder) as worker:
        found: dict[str, Any] = worker.do(time_products)
    told = ", ".join(f"{name} threads {ms['memory_ms']} ms" for name, ms in found["threads"].items())
    say("products", f"of {TOKENS} tokens, weights from memory: {told}")
    return {"tokens": TOKENS, "weights_mb": round(sum(rows * columns for rows, columns in shapes) / 1e6, 1), **found}


def product_shapes(model_file: Path) -> list[Shape]:
    """Of every quantised product of a graph, in its order."""
    import onnx  # noqa: PLC0415

    graph = onnx.load(str(model_file), load_external_data=False).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return [shapes[node.input[1]] for node in graph.node if node.op_type in QUANTISED_PRODUCTS]


class Products:
    """Graphs of nothing but products, in sessions as the box opens them."""

    def __init__(self, shapes: Sequence[Shape], folder: Path) -> None:
        from pipeline.threads import available_threads  # noqa: PLC0415

        self.cores = available_threads()
        self.counts = Counter(shapes)
        self._all = write_products(folder / "all.onnx", shapes)
        self._few = {
            shape: write_products(folder / f"{shape[0]}x{shape[1]}.onnx", [shape] * min(count, CACHED))
            for shape, count in self.counts.items()
        }

    def milliseconds(self, threads: int) -> dict[str, float]:
        """{"cache_ms", "memory_ms"} of all products once."""
        cached = sum(
            count * _seconds(file, threads) / min(count, CACHED)
            for (file, count) in zip(self._few.values(), self.counts.values(), strict=True)
        )
        return {"cache_ms": round(cached * 1000, 2), "memory_ms": round(_seconds(self._all, threads) * 1000, 2)}


def time_products(products: Products) -> dict[str, Any]:
    counts = sorted({1, products.cores})
    return {
        "threads": {str(threads): products.milliseconds(threads) for threads in counts},
        "read_gb_per_s": {str(threads): read_speed(threads) for threads in counts},
    }


def write_products(file: Path, shapes: Sequence[Shape]) -> Path:
    """A graph that multiplies an input of as many channels with random 7-bit weights of each shape."""
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    random = np.random.default_rng(3)
    nodes, constants, outputs = [], [], []
    for index, (rows, columns) in enumerate(shapes):
        weights = random.integers(-64, 64, (rows, columns), dtype=np.int8)
        values = (weights, np.full(columns, 0.01, np.float32), np.zeros(columns, np.int8))
        names = [f"{name}_{index}" for name in ("weights", "scales", "zeros")]
        constants += [numpy_helper.from_array(value, name) for name, value in zip(names, values, strict=True)]
        nodes.append(
            helper.make_node(
                "DynamicQuantizeMatMul", [f"input_{rows}", *names], [f"output_{index}"], domain="com.microsoft"
            )
        )
        outputs.append(helper.make_tensor_value_info(f"output_{index}", TensorProto.FLOAT, [1, TOKENS, columns]))
    inputs = [
        helper.make_tensor_value_info(f"input_{rows}", TensorProto.FLOAT, [1, TOKENS, rows])
        for rows in sorted({rows for rows, _ in shapes})
    ]
    graph = helper.make_graph(nodes, "products", inputs, outputs, constants)
    # The versions that released graphs have.
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(file))
    return file


def read_speed(threads: int) -> float:
    """Gigabytes a second that so many cores read from memory together."""
    arrays = [np.ones(READ // 8 // threads) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        seconds = [_timed(lambda: list(pool.map(np.sum, arrays))) for _ in range(WARM_UP)]
    return round(READ / median(seconds) / 1e9, 1)


def _seconds(file: Path, threads: int) -> float:
    from pipeline.engine import open_session  # noqa: PLC0415

    session = open_session(file, threads)
    random = np.random.default_rng(5)
    feed = {entry.name: random.standard_normal(entry.shape, dtype=np.float32) for entry in session.get_inputs()}
    seconds = [_timed(lambda: session.run(None, feed)) for _ in range(WARM_UP + RUNS)]
    return median(seconds[WARM_UP:])


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
