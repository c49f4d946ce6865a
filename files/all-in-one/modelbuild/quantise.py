"""quantise: dynamic INT8 in the form this machine's CPU computes right.

Where products of unsigned and signed bytes saturate (AVX2 and AVX-512 without VNNI), weights keep to 7 bits.
"""

import contextlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelbuild.graph import EXTERNAL_ABOVE, make_readable, remove_graph, weight_bytes
from modelbuild.outliers import split_outliers
from modelbuild.progress import say
from modelbuild.request import Request
from modelbuild.workspace import Workspace, finished, stage
from pipeline.cpu import Cpu

QUANTISED = "model.int8.onnx"
TABLE = "table.onnx"


@dataclass(frozen=True)
class Recipe:
    """How a graph is quantised. `weights` is int8-7bit, int8, uint8 or float32.

    `outliers` are (product, its input channels that are computed in float).
    """

    weights: str
    per_channel: bool = True
    table_in_int8: bool = True
    outliers: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def name(self) -> str:
        if self.weights == "float32":
            return "float32"
        exact = f", outliers of {len(self.outliers)} products in float" if self.outliers else ""
        return f"{self.weights}{exact}{'' if self.table_in_int8 else ', embedding table in float'}"


FLOAT32 = Recipe("float32", per_channel=False, table_in_int8=False)


def recipe_for(cpu: Cpu) -> Recipe:
    """The full recipe of a CPU class, before any step back."""
    return Recipe("int8-7bit" if cpu.saturates else "int8")


def quantise(workspace: Workspace, request: Request) -> dict[str, Any]:
    """Write STAGING/quantised/: table.onnx (only the embedding table in INT8) and model.int8.onnx (the full recipe)."""
    staging = workspace.staging(request.id)
    source = finished(staging / "fused", "optimise") / "model.onnx"
    recipe = recipe_for(request.cpu)

    def work(folder: Path) -> dict[str, Any]:
        quantise_table(source, folder / TABLE)
        quantise_products(folder / TABLE, folder / QUANTISED, recipe)
        sizes = {"float_bytes": weight_bytes(source), "int8_bytes": weight_bytes(folder / QUANTISED)}
        say("quantise", f"{recipe.name}: {sizes['float_bytes'] / 1e6:.0f} MB to {sizes['int8_bytes'] / 1e6:.0f} MB")
        return {"recipe": recipe.name, **sizes}

    return stage(staging / "quantised", work)


def quantise_file(source: Path, target: Path, recipe: Recipe, *, one_file: bool = False) -> None:
    """A float graph to an INT8 graph in one go; the folder of `target` takes the intermediate file."""
    if not recipe.table_in_int8:
        quantise_products(source, target, recipe, one_file=one_file)
        return
    table = target.with_name(f".{target.stem}.{TABLE}")
    try:
        quantise_table(source, table)
        quantise_products(table, target, recipe, one_file=one_file)
    finally:
        for path in table.parent.glob(f"{table.name}*"):
            path.unlink()


def quantise_table(source: Path, target: Path) -> None:
    """Only the embedding tables in INT8, one scale a table. A pass of its own: the ladder repeats only the rest."""
    _quantise(source, target, ["Gather"], external=weight_bytes(source) > EXTERNAL_ABOVE)
    _rename_looked_up(target)


def _rename_looked_up(model_file: Path) -> None:
    """Rename the bytes that quantised tables give: the second pass uses the same names for the inputs of products."""
    import onnx  # noqa: PLC0415

    model = onnx.load(str(model_file), load_external_data=False)
    looked_up = {node.output[0] for node in model.graph.node if node.op_type == "Gather"}
    names = {name: f"{name}_row" for name in looked_up if name.endswith("_quantized")}
    for node in model.graph.node:
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                values[index] = names.get(name, name)
    onnx.save(model, str(model_file))


def quantise_products(source: Path, target: Path, recipe: Recipe, *, one_file: bool = False) -> None:
    """Weight products (MatMul, fused Attention) in INT8 by the recipe; activations get their scale at run time.

    The tensors are in TARGET.data, or with `one_file` in the graph itself as long as they fit in.
    """
    split = target.with_name(f".{target.stem}.split.onnx")
    exact: list[str] = []
    try:
        if recipe.outliers:
            exact = split_outliers(source, split, dict(recipe.outliers))
        _quantise(
            split if recipe.outliers else source,
            target,
            ["MatMul", "Attention"],
            external=not one_file or weight_bytes(source) > EXTERNAL_ABOVE,
            unsigned=recipe.weights == "uint8",
            per_channel=recipe.per_channel,
            reduce_range=recipe.weights == "int8-7bit",
            nodes_to_exclude=[*exact, *head_products(source)],
        )
    finally:
        for path in split.parent.glob(f"{split.name}*"):
            path.unlink()


def head_products(model_file: Path) -> list[str]:
    """Names of the Gemm products: heads and poolers compute one row, so INT8 would cost accuracy and save nothing."""
    import onnx  # noqa: PLC0415

    graph = onnx.load(str(model_file), load_external_data=False).graph
    names = [node.name for node in graph.node if node.op_type == "Gemm"]
    # The quantiser splits a Gemm into a MatMul of this name and an Add.
    return [*names, *(f"{name}_MatMul" for name in names)]


def _quantise(
    source: Path, target: Path, operators: list[str], *, external: bool, unsigned: bool = False, **options: Any
) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    remove_graph(target)
    # The quantiser's advice to run a pre-processing step is for static quantisation.
    logging.getLogger().setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=operators,
            weight_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            use_external_data_format=external,
            # Fused operators have no shape inference: their tensors are float (1).
            extra_options={"DefaultTensorType": 1},
            **options,
        )
    make_readable(target)
