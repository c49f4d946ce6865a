"""Reading and trimming ONNX graphs."""

from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError

OUTPUTS = {"embedding": "sentence_embedding", "reranker": "logits"}
# A protobuf message ends at 2 GiB; above this the tensors go into a file beside the graph.
EXTERNAL_ABOVE = 1_900_000_000
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
    """The graph's file and the tensor files beside it."""
    names = (f"{model_file.name}_data", f"{model_file.name}.data")
    return [model_file, *(path for name in names if (path := model_file.with_name(name)).is_file())]


def layers_and_shape(config: dict[str, Any]) -> tuple[int, int, int]:
    """(layers, heads, hidden size) out of a config.json, 0 for what it does not say."""

    def first(*names: str) -> int:
        return int(next((config[name] for name in names if config.get(name)), 0))

    return (
        first("num_hidden_layers", "n_layers"),
        first("num_attention_heads", "n_heads"),
        first("hidden_size", "dim"),
    )
