"""Which products lose most when their input is quantised, measured on the model's own result.

The float graph gets a switch in front of every weight product: switched on, the product sees its input as dynamic
quantisation would give it (one scale for the whole tensor, which a few outliers stretch). One run per product and text
then shows what that product alone does to the sentence vector or the logit.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from modelbuild.graph import EXTERNAL_ABOVE, weight_bytes
from modelbuild.progress import say
from pipeline.engine import INTEGER_TYPES, build_feed, session_options
from pipeline.threads import available_threads
from pipeline.tokens import TokenSequence

SWITCHES = "onebox_switches"
RUNS = 192


def weight_products(graph: Any) -> list[Any]:
    """MatMul and Attention nodes whose second input is a constant: what the quantiser would take."""
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    return [node for node in graph.node if node.op_type in ("MatMul", "Attention") and node.input[1] in constants]


def rank_products(model_file: Path, output: str, sequences: Sequence[TokenSequence], scratch: Path) -> dict[str, float]:
    """{product: change of the result when it alone is quantised}, largest first. `scratch` takes a temporary graph.

    The change is 1 - cosine for vectors and the absolute difference for a logit, averaged over `sequences` (fewer for
    models with many products, so that the whole measurement stays near RUNS runs).
    """
    scratch.mkdir(parents=True, exist_ok=True)
    switched = scratch / "switched.onnx"
    try:
        names = _write_switched_graph(model_file, switched)
        chosen = sequences[: max(1, RUNS // max(1, len(names)))]
        changes = _measure(switched, output, len(names), chosen)
    finally:
        for path in scratch.glob("switched.onnx*"):
            path.unlink()
    say("prove", f"measured {len(names)} products on {len(chosen)} texts")
    ranked = sorted(zip(names, changes, strict=True), key=lambda pair: -pair[1])
    return {name: float(f"{change:.3g}") for name, change in ranked}


def _write_switched_graph(source: Path, target: Path) -> list[str]:
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    model = onnx.load(str(source))
    graph = model.graph
    products = weight_products(graph)
    graph.input.append(helper.make_tensor_value_info(SWITCHES, TensorProto.BOOL, [len(products)]))
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
    return [node.name for node in products]


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


def _measure(model_file: Path, output: str, products: int, sequences: Sequence[TokenSequence]) -> list[float]:
    session = ort.InferenceSession(str(model_file), sess_options=session_options(), providers=["CPUExecutionProvider"])
    inputs = {entry.name: INTEGER_TYPES[entry.type] for entry in session.get_inputs() if entry.name != SWITCHES}
    feeds = [build_feed(inputs, sequence.ids, sequence.type_ids) for sequence in sequences]

    def run(column: int, row: int | None) -> np.ndarray[Any, Any]:
        switches = np.zeros(products, dtype=bool)
        if row is not None:
            switches[row] = True
        result: np.ndarray[Any, Any] = session.run([output], {**feeds[column], SWITCHES: switches})[0]
        return result

    columns = range(len(sequences))
    with ThreadPoolExecutor(available_threads()) as pool:
        references = list(pool.map(lambda column: run(column, None), columns))

        def change_of(row: int) -> float:
            return float(np.mean([_change(run(column, row), references[column]) for column in columns]))

        return list(pool.map(change_of, range(products)))


def _change(result: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> float:
    if reference.size == 1:
        return float(np.abs(result - reference).max())
    left, right = result.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    return max(0.0, 1.0 - float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right))))
