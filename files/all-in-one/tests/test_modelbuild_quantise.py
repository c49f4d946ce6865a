"""Recipes, quantised graphs and the measured sensitivity of products."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_graphs import ALL_INPUTS, write_model

from modelbuild.quantise import QUANTISED, Recipe, quantise_file, quantise_products, quantise_table, recipe_for
from modelbuild.sensitivity import rank_products, weight_products
from pipeline.cpu import Cpu
from pipeline.embedder import Embedder
from pipeline.tokens import TextTokenizer


@pytest.mark.parametrize(
    ("cpu", "weights"),
    [
        ("x86-avx2", "int8-7bit"),
        ("x86-avx512", "int8-7bit"),
        ("x86-other", "int8-7bit"),
        ("x86-vnni", "int8"),
        ("x86-amx", "int8"),
        ("arm-dotprod", "int8"),
    ],
)
def test_weights_keep_to_seven_bits_where_products_saturate(cpu: str, weights: str) -> None:
    assert recipe_for(Cpu(cpu, ())) == Recipe(weights)


def _weights(file: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(file)).graph.initializer}


def _operators(file: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(file)).graph.node]


@pytest.mark.parametrize(("weights", "limit"), [("int8-7bit", 64), ("int8", 127)])
def test_a_recipe_sets_the_range_of_the_weights(tmp_path: Path, weights: str, limit: int) -> None:
    folder = write_model(tmp_path / "m")
    quantise_file(folder / "model.onnx", folder / QUANTISED, Recipe(weights))
    first = _weights(folder / QUANTISED)["first_quantized"].astype(int)
    assert np.abs(first).max() in (limit - 1, limit)


def test_scales_are_per_column(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    for per_channel, count in ((True, 64), (False, 1)):
        quantise_file(folder / "model.onnx", folder / QUANTISED, Recipe("int8", per_channel=per_channel))
        assert _weights(folder / QUANTISED)["first_scale"].size == count


def test_the_embedding_table_is_quantised_with_the_rest(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    quantise_file(folder / "model.onnx", folder / QUANTISED, Recipe("int8"))
    assert _weights(folder / QUANTISED)["table_quantized"].itemsize == 1
    assert "MatMul" not in _operators(folder / QUANTISED)
    assert sorted(path.name for path in folder.glob("*table*")) == []


def test_the_embedding_table_can_stay_in_float(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    quantise_file(folder / "model.onnx", folder / QUANTISED, Recipe("int8", table_in_int8=False))
    assert _weights(folder / QUANTISED)["table"].dtype == np.float32


def test_a_named_product_stays_in_float(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    quantise_table(folder / "model.onnx", folder / "table.onnx")
    quantise_products(folder / "table.onnx", folder / QUANTISED, Recipe("int8", in_float=("second_product",)))
    left = [node for node in onnx.load(str(folder / QUANTISED)).graph.node if node.op_type == "MatMul"]
    assert [node.name for node in left] == ["second_product"]


def test_the_parts_of_a_recipe_are_in_its_name() -> None:
    assert Recipe("int8-7bit").name == "int8-7bit"
    assert Recipe("int8", in_float=("a", "b")).name == "int8, 2 products in float"
    assert Recipe("int8", table_in_int8=False).name == "int8, embedding table in float"


def test_a_quantised_model_stays_close_to_float(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", inputs=ALL_INPUTS)
    quantise_file(folder / "model.onnx", folder / QUANTISED, Recipe("int8-7bit"))
    texts = ["hello", "반품 정책은 어떻게 되나요?"]
    exact = Embedder(folder / "model.onnx").encode_array(texts)
    rounded = Embedder(folder / QUANTISED).encode_array(texts)
    assert (exact * rounded).sum(axis=1).min() > 0.99
    assert not (exact == rounded).all()


def test_only_products_with_constant_weights_are_candidates(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", "reranker")
    graph = onnx.load(str(folder / "model.onnx")).graph
    assert [node.name for node in weight_products(graph)] == ["first_product", "second_product", "head_product"]


def test_the_product_with_outliers_is_the_most_sensitive(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    model = onnx.load(str(folder / "model.onnx"))
    table = next(tensor for tensor in model.graph.initializer if tensor.name == "table")
    values = numpy_helper.to_array(table).copy()
    # One huge coordinate stretches the scale of the first product's input; tanh hides it from the second.
    values[:, 0] = 300.0
    table.CopyFrom(numpy_helper.from_array(values, "table"))
    onnx.save(model, str(folder / "model.onnx"))
    sequences = TextTokenizer(folder / "tokenizer.json", 64).singles(["hello", "a longer text"])
    ranked = rank_products(folder / "model.onnx", "sentence_embedding", sequences, tmp_path / "scratch")
    assert list(ranked) == ["first_product", "second_product"]
    assert ranked["first_product"] > ranked["second_product"] > 0
    assert list((tmp_path / "scratch").iterdir()) == []
