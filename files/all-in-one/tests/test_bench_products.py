"""The benchmark of products: graphs of a release's own weights, which the box's sessions run."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.parts import products


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A graph with two quantised products of weights and one of two activations, which has no weights."""
    random = np.random.default_rng(1)
    weights = {name: random.integers(-64, 64, shape, np.int8) for name, shape in (("a", (64, 32)), ("b", (32, 64)))}
    nodes = [
        helper.make_node("MatMulInteger", ["x", "a"], ["y"]),
        helper.make_node("MatMulInteger", ["x", "b"], ["z"]),
        helper.make_node("MatMulInteger", ["x", "x"], ["w"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, None)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.INT32, None) for name in ("y", "z", "w")]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    file = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, constants)), str(file))
    return file


def test_a_release_s_own_weights_are_multiplied(release: Path, tmp_path: Path) -> None:
    weights = products.quantised_weights(release)
    assert [array.shape for array in weights] == [(64, 32), (32, 64)]
    products.write_products(weights, tmp_path)
    measured = products.Products(tmp_path, [tuple(array.shape) for array in weights])
    for threads in products.thread_counts():
        found = products.time_products(measured, threads)
        assert found["all_ms"] > 0 and found["read_gb_per_s"] > 0
