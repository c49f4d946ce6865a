"""Small real models with weight products, which can be quantised: a byte tokenizer and a few random matrices."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pipeline.cpu import detect

DIMENSION = 32
ALL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SPECIAL = {"<pad>": 0, "<s>": 1, "</s>": 2}


def write_model(
    folder: Path,
    kind: str = "embedding",
    *,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
    file: str = "model.onnx",
    pooled: bool = True,
    labels: int = 1,
    manifest: dict[str, Any] | None = None,
) -> Path:
    """Write graph, tokenizer and config. `pooled` False gives a vector per token, as plain transformers exports do.

    With a `manifest` it is a release: the manifest states what is needed to serve it and each file's sha256.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(
        json.dumps({"model_type": "tiny", "hidden_size": DIMENSION, "num_hidden_layers": 2})
    )
    onnx.save(_model(tokenizer.get_vocab_size(), kind, inputs, pooled, labels), str(folder / file))
    if manifest is not None:
        base: dict[str, Any] = {
            "schema": 1,
            "id": "tiny-1",
            "kind": kind,
            "file": file,
            "max_length": 64,
            "profile": {},
        }
        base["output"] = "logits" if kind == "reranker" else "sentence_embedding" if pooled else "last_hidden_state"
        base["files"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
        base["cpu"], base["versions"] = {"class": detect().name}, {"onnxruntime": onnxruntime.__version__}
        (folder / "manifest.json").write_text(json.dumps({**base, **manifest}))
    return folder


TENSOR_FILES = ("Constant_7_attr__value", "model.onnx_data", "model.onnx_data_1")


def keep_tensors_beside(model_file: Path) -> Path:
    """Move the tensors of a graph into TENSOR_FILES, one of them a constant's, as bge-m3's graph has it."""
    model = onnx.load(str(model_file))
    graph = model.graph
    types = next(tensor for tensor in graph.initializer if tensor.name == "types")
    graph.node.insert(0, helper.make_node("Constant", [], ["types"], value=types))
    graph.initializer.remove(types)
    set_external_data(graph.node[0].attribute[0].t, TENSOR_FILES[0])
    for tensor in graph.initializer:
        if tensor.name != "axis":
            set_external_data(tensor, TENSOR_FILES[2] if tensor.name == "table" else TENSOR_FILES[1])
    for name in TENSOR_FILES:
        model_file.with_name(name).unlink(missing_ok=True)
    onnx.save(model, str(model_file))
    return model_file


def byte_tokenizer() -> Tokenizer:
    """One token a byte, <s> A </s> and <s> A </s></s> B </s>, with B's type IDs 1."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {**SPECIAL, **{letter: index + len(SPECIAL) for index, letter in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def profile(kind: str = "embedding", **changes: Any) -> dict[str, Any]:
    """A profile that fits `write_model`; None removes a field."""
    content: dict[str, Any] = {
        "name": "Tiny Model",
        "kind": kind,
        "source": {"type": "folder", "path": "/models/tiny"},
        "route": "sentence-transformers" if kind == "embedding" else "transformers",
        "max_length": 64,
        "licence": "MIT",
        "languages": ["fr"],
    }
    if kind == "embedding":
        content |= {"pooling": "mean", "normalize": True, "dimension": DIMENSION, "default_input_type": "query"}
        content["prefixes"] = {"query": "q: ", "passage": "p: "}
    return {name: value for name, value in (content | changes).items() if value is not None}


def _model(vocabulary: int, kind: str, inputs: tuple[str, ...], pooled: bool, labels: int) -> onnx.ModelProto:
    random = np.random.default_rng(3)
    tensors = {
        "table": random.standard_normal((vocabulary, DIMENSION)),
        "types": random.standard_normal((2, DIMENSION)),
        "first": random.standard_normal((DIMENSION, DIMENSION * 2)) / 4,
        "second": random.standard_normal((DIMENSION * 2, DIMENSION)) / 4,
        "head": random.standard_normal((DIMENSION, labels)) * 2,
    }
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["words"])]
    embedded = "words"
    if "token_type_ids" in inputs:
        nodes.append(helper.make_node("Gather", ["types", "token_type_ids"], ["type_vectors"]))
        nodes.append(helper.make_node("Add", ["words", "type_vectors"], ["typed"]))
        embedded = "typed"
    nodes += [
        helper.make_node("MatMul", [embedded, "first"], ["wide"], name="first_product"),
        helper.make_node("Tanh", ["wide"], ["bent"]),
        helper.make_node("MatMul", ["bent", "second"], ["last_hidden_state"], name="second_product"),
        *_ending(kind, pooled),
    ]
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()]
    constants.append(numpy_helper.from_array(np.array([1]), "axis"))
    output = {"reranker": "logits"}.get(kind, "sentence_embedding" if pooled else "last_hidden_state")
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _ending(kind: str, pooled: bool) -> list[onnx.NodeProto]:
    if kind == "embedding" and not pooled:
        return []
    mean = helper.make_node("ReduceMean", ["last_hidden_state", "axis"], ["mean"], keepdims=0)
    if kind == "embedding":
        return [mean, helper.make_node("LpNormalization", ["mean"], ["sentence_embedding"], axis=-1, p=2)]
    return [mean, helper.make_node("MatMul", ["mean", "head"], ["logits"], name="head_product")]
