"""Which products lose most when their input is quantised, and which of its channels are to blame, measured here.

The float graph gets a switch in front of every weight product: switched on, the product sees its input as dynamic
quantisation would give it (one scale for the whole tensor, which a few outliers stretch). One run per product and text
then shows what that product alone does to the sentence vector or the logit.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelbuild.graph import EXTERNAL_ABOVE, weight_bytes
from modelbuild.outliers import largest_channels
from modelbuild.progress import say
from pipeline.engine import INTEGER_TYPES, build_feed, open_session
from pipeline.threads import available_threads
from pipeline.tokens import TokenSequence

SWITCHES = "onebox_switches"
MOST_TEXTS = 8


@dataclass(frozen=True)
class Sensitivity:
    """`changes` of the result by product, largest first; `channels` of its input that are largest in absolute value."""

    changes: dict[str, float]
    channels: dict[str, tuple[int, ...]]


def weight_products(graph: Any) -> list[Any]:
    """MatMul nodes whose second input is a constant. (Fused Attention keeps its own products in float but one.)"""
    constants = {tensor.name for tensor in graph.initializer}
    return [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in constants]


def measure_sensitivity(
    model_file: Path, output: str, sequences: Sequence[TokenSequence], scratch: Path, seconds: float
) -> Sensitivity:
    """Sensitivity of every weight product, in about `seconds`; `scratch` takes a temporary graph.

    A change is 1 - cosine for vectors and the absolute difference for a logit, averaged over the texts that fit into
    the time (at most MOST_TEXTS). The channels' peaks are over all `sequences`.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    switched = scratch / "switched.onnx"
    try:
        products = _write_switched_graph(model_file, switched)
        return _measure(switched, output, products, sequences, seconds)
    finally:
        for path in scratch.glob("switched.onnx*"):
            path.unlink()


def _write_switched_graph(source: Path, target: Path) -> dict[str, str]:
    """{product: its input}, in the order of the switches; the inputs are outputs of the graph too."""
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    model = onnx.load(str(source))
    graph = model.graph
    products = weight_products(graph)
    graph.input.append(helper.make_tensor_value_info(SWITCHES, TensorProto.BOOL, [len(products)]))
    inputs = {node.name: str(node.input[0]) for node in products}
    for name in dict.fromkeys(inputs.values()):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    switched = {id(node): index for index, node in enumerate(products)}
    nodes = []
    for node in list(graph.node):
        if (index := switched.get(id(node))) is not None:
            graph.initializer.append(numpy_helper.from_array(np.array(index, np.int64), f"{SWITCHES}_{index}"))
            nodes += _switch(helper, node.input[0], index)
            node.input[0] = f"{SWITCHES}_{index}_input"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    external = weight_bytes(source) > EXTERNAL_ABOVE
    onnx.save(model, str(target), save_as_external_data=external, location=f"{target.name}.data")
    return inputs


def _switch(helper: Any, tensor: str, index: int) -> list[Any]:
    """Nodes that give `tensor`, quantised and back when switch `index` is on."""
    prefix = f"{SWITCHES}_{index}"
    parts = [f"{prefix}_{part}" for part in ("bytes", "scale", "zero")]
    return [
        helper.make_node("DynamicQuantizeLinear", [tensor], parts),
        helper.make_node("DequantizeLinear", parts, [f"{prefix}_rounded"]),
        helper.make_node("Gather", [SWITCHES, prefix], [f"{prefix}_on"]),
        helper.make_node("Where", [f"{prefix}_on", f"{prefix}_rounded", tensor], [f"{prefix}_input"]),
    ]


def _measure(
    model_file: Path, output: str, products: dict[str, str], sequences: Sequence[TokenSequence], seconds: float
) -> Sensitivity:
    session = open_session(model_file)
    inputs = {entry.name: INTEGER_TYPES[entry.type] for entry in session.get_inputs() if entry.name != SWITCHES}
    feeds = [build_feed(inputs, sequence.ids, sequence.type_ids) for sequence in sequences]
    off = np.zeros(len(products), dtype=bool)

    def run(column: int, row: int) -> np.ndarray[Any, Any]:
        switches = off.copy()
        switches[row] = True
        result: np.ndarray[Any, Any] = session.run([output], {**feeds[column], SWITCHES: switches})[0]
        return result

    start = time.monotonic()
    references, channels = [], {}
    peaks: dict[str, np.ndarray[Any, Any]] = {}
    for feed in feeds:
        names = list(dict.fromkeys(products.values()))
        result, *activations = session.run([output, *names], {**feed, SWITCHES: off})
        references.append(result)
        for name, values in zip(names, activations, strict=True):
            peak = np.abs(values.reshape(-1, values.shape[-1])).max(axis=0)
            peaks[name] = np.maximum(peaks.get(name, peak), peak)
    channels = {product: largest_channels(peaks[name]) for product, name in products.items()}
    once = (time.monotonic() - start) / len(feeds)
    count = int(seconds * available_threads() / max(1e-6, once * len(products)))
    columns = np.linspace(0, len(feeds) - 1, max(1, min(MOST_TEXTS, len(feeds), count))).astype(int).tolist()

    def change_of(row: int) -> float:
        return float(np.mean([_change(run(column, row), references[column]) for column in columns]))

    with ThreadPoolExecutor(available_threads()) as pool:
        changes = list(pool.map(change_of, range(len(products))))
    say("prove", f"measured {len(products)} products on {len(columns)} texts")
    ranked = sorted(zip(products, changes, strict=True), key=lambda pair: -pair[1])
    return Sensitivity({name: float(f"{change:.3g}") for name, change in ranked}, channels)


def _change(result: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> float:
    if reference.size == 1:
        return float(np.abs(result - reference).max())
    left, right = result.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    return max(0.0, 1.0 - float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right))))
