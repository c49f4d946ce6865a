"""Recipes, quantised graphs and the measured sensitivity of products."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_graphs import ALL_INPUTS, keep_tensors_beside, profile, write_model

from modelbuild import graph as graphs
from modelbuild.optimise import optimise_folder
from modelbuild.outliers import CHANNELS, largest_channels, split_outliers
from modelbuild.profile import parse_profile
from modelbuild.quantise import QUANTISED, Recipe, quantise_file, quantise_products, quantise_table, recipe_for
from modelbuild.sensitivity import measure_sensitivity, weight_products
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


def test_unsigned_weights_have_a_recipe_too(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    quantise_file(folder / "model.onnx", folder / QUANTISED, Recipe("uint8"))
    assert _weights(folder / QUANTISED)["first_quantized"].dtype == np.uint8


def test_a_split_product_computes_the_same(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    names = split_outliers(
        folder / "model.onnx", folder / "split.onnx", {"first_product": (3, 7), "second_product": (0,)}
    )
    assert names == ["first_product_outliers", "second_product_outliers"]
    texts = ["hello", "반품 정책은 어떻게 되나요?"]
    exact = Embedder(folder / "model.onnx").encode_array(texts)
    assert np.abs(Embedder(folder / "split.onnx").encode_array(texts) - exact).max() < 1e-6


def test_only_the_outliers_of_a_split_product_stay_in_float(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    quantise_table(folder / "model.onnx", folder / "table.onnx")
    recipe = Recipe("int8", outliers=(("second_product", (1, 2)),))
    quantise_products(folder / "table.onnx", folder / QUANTISED, recipe)
    left = [node for node in onnx.load(str(folder / QUANTISED)).graph.node if node.op_type == "MatMul"]
    assert [node.name for node in left] == ["second_product_outliers"]
    assert _weights(folder / QUANTISED)["second_product_outliers_weights"].shape[0] == 2
    assert not list(folder.glob(".*split*"))


def test_a_graph_with_its_tensors_beside_it_is_split_and_measured_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above 2 GB, where one file cannot hold a graph."""
    for module in ("quantise", "outliers", "sensitivity"):
        monkeypatch.setattr(f"modelbuild.{module}.EXTERNAL_ABOVE", 1)
    folder = write_model(tmp_path / "m")
    model = onnx.load(str(folder / "model.onnx"))
    onnx.save(model, str(folder / "big.onnx"), save_as_external_data=True, location="big.onnx.data", size_threshold=0)
    assert graphs.files_of(folder / "big.onnx") == [folder / "big.onnx", folder / "big.onnx.data"]
    sequences = TextTokenizer(folder / "tokenizer.json", 64).singles(["hello"])
    measured = measure_sensitivity(folder / "big.onnx", "sentence_embedding", sequences, tmp_path / "scratch", 1)
    assert set(measured.changes) == {"first_product", "second_product"}
    recipe = Recipe("int8", outliers=(("first_product", (0, 1)),))
    quantise_file(folder / "big.onnx", folder / QUANTISED, recipe)
    texts = ["hello", "반품"]
    exact = Embedder(folder / "model.onnx").encode_array(texts)
    assert (Embedder(folder / QUANTISED).encode_array(texts) * exact).sum(axis=1).min() > 0.99


@pytest.mark.parametrize("one_file", [False, True])
def test_a_graph_that_cannot_be_fused_is_left_with_its_tensors_in_one_file_and_quantised(
    tmp_path: Path, one_file: bool
) -> None:
    """onnx refuses tensor files with several names, so that they must not be links."""
    source = write_model(tmp_path / "m", inputs=ALL_INPUTS)
    exact = Embedder(source / "model.onnx").encode_array(["hello", "반품"])
    keep_tensors_beside(source / "model.onnx")
    out = tmp_path / "fused"
    out.mkdir()
    told = optimise_folder(source, parse_profile(profile()), out, "sentence_embedding", one_file=one_file)
    assert told["fused"] is False
    for target in ("model.onnx", QUANTISED):
        if target == QUANTISED:
            quantise_file(out / "model.onnx", out / QUANTISED, Recipe("int8"), one_file=one_file)
        tensors = [] if one_file else [out / f"{target}.data"]
        assert graphs.files_of(out / target) == [out / target, *tensors]
        assert all(path.stat().st_mode & 0o777 == 0o644 for path in graphs.files_of(out / target))
        assert (Embedder(out / target).encode_array(["hello", "반품"]) * exact).sum(axis=1).min() > 0.99


def test_the_largest_channels_are_those_of_the_largest_values() -> None:
    peaks = np.arange(100.0)
    peaks[3] = 1000
    assert largest_channels(peaks) == (3, *range(101 - CHANNELS, 100))


def test_the_parts_of_a_recipe_are_in_its_name() -> None:
    assert Recipe("int8-7bit").name == "int8-7bit"
    assert Recipe("int8", outliers=(("a", (1,)), ("b", (2,)))).name == "int8, outliers of 2 products in float"
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


def model_with_outlier(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "m")
    model = onnx.load(str(folder / "model.onnx"))
    table = next(tensor for tensor in model.graph.initializer if tensor.name == "table")
    values = numpy_helper.to_array(table).copy()
    # One huge coordinate stretches the scale of the first product's input; tanh hides it from the second.
    values[:, 0] = 300.0
    table.CopyFrom(numpy_helper.from_array(values, "table"))
    onnx.save(model, str(folder / "model.onnx"))
    return folder


def test_the_product_with_outliers_is_the_most_sensitive(tmp_path: Path) -> None:
    folder = model_with_outlier(tmp_path)
    sequences = TextTokenizer(folder / "tokenizer.json", 64).singles(["hello", "a longer text"])
    measured = measure_sensitivity(folder / "model.onnx", "sentence_embedding", sequences, tmp_path / "scratch", 1)
    assert list(measured.changes) == ["first_product", "second_product"]
    assert measured.changes["first_product"] > measured.changes["second_product"] > 0
    assert 0 in measured.channels["first_product"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_splitting_off_the_outlier_mends_what_quantising_broke(tmp_path: Path) -> None:
    folder = model_with_outlier(tmp_path)
    texts = ["hello", "반품 정책은 어떻게 되나요?", "a longer text about nothing"]
    exact = Embedder(folder / "model.onnx").encode_array(texts)

    def cosine(recipe: Recipe) -> float:
        quantise_file(folder / "model.onnx", folder / QUANTISED, recipe)
        return float((Embedder(folder / QUANTISED).encode_array(texts) * exact).sum(axis=1).min())

    whole = cosine(Recipe("int8"))
    split = cosine(Recipe("int8", outliers=(("first_product", (0,)),)))
    assert 1 - split < (1 - whole) / 3
