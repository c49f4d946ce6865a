"""Reading, trimming, saving and placing ONNX graphs, whose tensors may lie in files of their own."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from modelbuild.errors import BuildError
from modelbuild.workspace import place

OUTPUTS = {"embedding": "sentence_embedding", "reranker": "logits"}
# A protobuf message ends at 2 GiB; above this the tensors have to go into a file beside the graph.
EXTERNAL_ABOVE = 1_900_000_000
READABLE = 0o644
FUSABLE = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra")


def keep_output(model_file: Path, name: str) -> None:
    """Make `name` the graph's only output: whatever else it gives would be computed and copied on every run."""
    import onnx  # noqa: PLC0415

    model = onnx.load(str(model_file), load_external_data=False)
    names = [output.name for output in model.graph.output]
    if name not in names:
        raise BuildError(
            f"{model_file}: the export gives {', '.join(names)}, expected {name}. The profile's route does not fit "
            "this model (sentence-transformers for embeddings, transformers for rerankers with one label)."
        )
    if names != [name]:
        kept = [output for output in model.graph.output if output.name == name]
        del model.graph.output[:]
        model.graph.output.extend(kept)
        onnx.save(model, str(model_file))


def single_output(model_file: Path) -> str:
    """The first output's name, for graphs that others made."""
    import onnx  # noqa: PLC0415

    return str(onnx.load(str(model_file), load_external_data=False).graph.output[0].name)


def weight_bytes(model_file: Path) -> int:
    """Bytes of a graph with its external tensors."""
    return sum(path.stat().st_size for path in files_of(model_file))


def files_of(model_file: Path) -> list[Path]:
    """The graph's file and the tensor files that it names; BuildError where one is missing."""
    files = [model_file, *(model_file.parent / location for location in tensor_locations(model_file))]
    for path in files:
        if not path.is_file():
            raise BuildError(f"{model_file} keeps tensors in {path.name}, which is not there. Put it beside the graph.")
    return files


def tensor_locations(model_file: Path) -> list[str]:
    """Where the graph says that its external tensors are, relative to its folder; a path out of there is refused."""
    import onnx  # noqa: PLC0415
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        model = onnx.load(str(model_file), load_external_data=False)
    except DecodeError as error:
        raise BuildError(f"{model_file} is not an ONNX graph ({error}). Name one, or fetch it again.") from error
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    tensors = [*_initializers(model.graph), *_attribute_tensors(nodes)]
    external = [tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]
    locations = {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"}
    for location in locations:
        path = PurePosixPath(location)
        if path.is_absolute() or ".." in path.parts:
            raise BuildError(
                f"{model_file} keeps tensors in {location!r}, which leads out of its folder; expected a file beside "
                "it. Do not use this graph, or save it anew with its tensors in one file."
            )
    return sorted(locations)


def _initializers(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for tensor in graph.sparse_initializer:
        yield from (tensor.values, tensor.indices)


def _attribute_tensors(nodes: Any) -> Iterator[Any]:
    """Tensors in nodes, such as constants, and in the graphs inside of nodes."""
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from _initializers(graph)
            yield from _attribute_tensors(graph.node)


def save_graph(model: Any, target: Path, *, one_file: bool = False) -> None:
    """Save with the tensors in TARGET.data, which onnxruntime maps where it would copy what is inside of a graph."""
    import onnx  # noqa: PLC0415

    remove_graph(target)
    onnx.save(model, str(target), save_as_external_data=not one_file, location=f"{target.name}.data")
    make_readable(target)


def remove_graph(target: Path) -> None:
    """Remove a graph saved here, if there is one: tensors are otherwise added to the file that is there."""
    for path in (target, target.with_name(f"{target.name}.data")):
        path.unlink(missing_ok=True)


def make_readable(model_file: Path) -> None:
    """onnx writes tensor files for the owner's eyes only."""
    for path in files_of(model_file):
        path.chmod(READABLE)


def place_graph(model_file: Path, folder: Path) -> None:
    """Put a graph and its tensor files into another folder to be served from there, without copying them.

    onnxruntime reads tensor files that have several names; onnx takes them for an attack. What is placed is finished.
    """
    for path in files_of(model_file):
        place(path, folder / path.name)


def layers_and_shape(config: dict[str, Any]) -> tuple[int, int, int]:
    """(layers, heads, hidden size) out of a config.json, 0 for what it does not say."""

    def first(*names: str) -> int:
        return int(next((config[name] for name in names if config.get(name)), 0))

    return (
        first("num_hidden_layers", "n_layers"),
        first("num_attention_heads", "n_heads"),
        first("hidden_size", "dim"),
    )
