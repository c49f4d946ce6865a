"""Mixed precision inside a product: the few input channels that stretch its scale are computed in float.

Dynamic quantisation takes one scale over a product's whole input. In encoders a few channels are many times larger
than the others, which that scale then rounds to almost nothing. x W = x' W + x_o W_o, where x' is x with those channels
set to zero and x_o holds them alone, keeps them exact at the price of a float product of a few columns (the
decomposition of LLM.int8(), Dettmers et al. 2022; here with fixed channels, chosen by measurement).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelbuild.graph import EXTERNAL_ABOVE, weight_bytes
from modelbuild.thresholds import CHANNELS

SUFFIX = "_outliers"


def largest_channels(peaks: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """The CHANNELS channels with the largest absolute value seen, in order of their index; `peaks` is [channels]."""
    return tuple(sorted(int(index) for index in np.argsort(-peaks)[:CHANNELS]))


def split_outliers(source: Path, target: Path, outliers: Mapping[str, Sequence[int]]) -> list[str]:
    """Write the graph with each named product split at its channels; the names of the products to leave in float."""
    import onnx  # noqa: PLC0415
    from onnx import helper, numpy_helper  # noqa: PLC0415

    model = onnx.load(str(source))
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[Any] = []
    for node in list(graph.node):
        if node.name not in outliers:
            nodes.append(node)
            continue
        prefix = f"{node.name}{SUFFIX}"
        index = np.array(outliers[node.name], np.int64)
        weights = numpy_helper.to_array(constants[node.input[1]])
        rest = np.ones(weights.shape[0], np.float32)
        rest[index] = 0
        for name, value in (("rest", rest), ("index", index), ("weights", weights[index])):
            graph.initializer.append(numpy_helper.from_array(value, f"{prefix}_{name}"))
        # The others' rows of the weights stay as they are: what they are multiplied with is zero.
        nodes += [
            helper.make_node("Mul", [node.input[0], f"{prefix}_rest"], [f"{prefix}_others"], name=f"{prefix}_mask"),
            helper.make_node(
                "Gather", [node.input[0], f"{prefix}_index"], [f"{prefix}_taken"], name=f"{prefix}_take", axis=-1
            ),
            helper.make_node("MatMul", [f"{prefix}_taken", f"{prefix}_weights"], [f"{prefix}_part"], name=prefix),
            helper.make_node("Add", [f"{prefix}_main", f"{prefix}_part"], [node.output[0]], name=f"{prefix}_sum"),
        ]
        node.input[0], node.output[0] = f"{prefix}_others", f"{prefix}_main"
        nodes.insert(-1, node)
    del graph.node[:]
    graph.node.extend(nodes)
    external = weight_bytes(source) > EXTERNAL_ABOVE
    onnx.save(model, str(target), save_as_external_data=external, location=f"{target.name}.data")
    return [f"{name}{SUFFIX}" for name in outliers]
