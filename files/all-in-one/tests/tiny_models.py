"""Release folders as modelbuild makes them, with models small enough to be made here: a table of random vectors."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from pipeline.cpu import detect

DIMENSION = 32
MAX_LENGTH = 128
PREFIXES = {"query": "query: ", "passage": "passage: "}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SAMPLE = [
    "반품은 상품을 받은 날부터 7일 안에 할 수 있습니다. 환불은 카드 승인 취소로 처리됩니다.",
    "Returns are accepted within thirty days of delivery. Shipping is free for orders above fifty dollars.",
    "비밀번호를 잊으셨나요? 로그인 화면에서 재설정할 수 있습니다. 오류 코드 E-204가 나오면 앱을 다시 시작해 주세요.",
    "How do I reset my password? Error code E-204 means that the payment was refused by the bank.",
]  # fmt: skip


def write_embedding_release(
    folder: Path,
    *,
    revision: str = "1",
    release: str = "",
    prefixes: dict[str, str] = PREFIXES,
    seed: int | None = None,
) -> Path:
    """An embedding release whose space is told apart by `revision`; another `release` has the same vectors.

    Unless another `seed` gives it others, as a release would have that was built wrong.

    A text of nothing but special tokens, such as [PAD], has the vector zero, unless a prefix gives it one.
    """
    identity = release or f"tiny-embedding-{revision}"
    tokenizer = _tokenizer()
    space = {
        "repository": "test/tiny",
        "revision": revision,
        "pooling": "mean",
        "normalize": True,
        "prefixes": prefixes,
        "dimension": DIMENSION,
        "max_length": MAX_LENGTH,
    }
    manifest = _manifest(identity, "embedding", "sentence_embedding") | {
        "space": space,
        "dimension": DIMENSION,
        "profile": {"name": "tiny-embedding", "prefixes": prefixes, "default_input_type": "query", "normalize": True},
    }
    table = _table(tokenizer.get_vocab_size(), DIMENSION, seed=int(revision) if seed is None else seed)
    return _write(folder / identity, manifest, tokenizer, _embedding_graph(table))


def write_reranker_release(folder: Path, *, release: str = "tiny-reranker-1") -> Path:
    """A reranker whose logit is the inner product of the query's and the document's mean token vector, scaled."""
    tokenizer = _tokenizer()
    manifest = _manifest(release, "reranker", "logits") | {"profile": {"name": "tiny-reranker"}}
    table = _table(tokenizer.get_vocab_size(), DIMENSION, seed=7)
    return _write(folder / release, manifest, tokenizer, _reranker_graph(table))


def _manifest(identity: str, kind: str, output: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "id": identity,
        "kind": kind,
        "file": "model.onnx",
        "recipe": {"name": "float", "weights": "float32", "excluded": [], "reason": "a test's model"},
        "cpu": {"class": detect().name, "flags": []},
        "versions": {"onnxruntime": onnxruntime.__version__},
        "output": output,
        "max_length": MAX_LENGTH,
        "pad_id": 0,
        "gate": {"passed": True},
        "speed": {"float_ms": 1.0},
        "fusion": {"fused": 0, "why": "no attention"},
        "golden": [],
    }


def _write(folder: Path, manifest: dict[str, Any], tokenizer: Tokenizer, graph: onnx.GraphProto) -> Path:
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "model.onnx"))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("model.onnx", "tokenizer.json")
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(SAMPLE, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def _table(rows: int, dimension: int, *, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    table = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    # What every sequence has in common says nothing about it.
    table[: len(SPECIAL)] = 0
    return table


def _embedding_graph(table: np.ndarray[Any, Any]) -> onnx.GraphProto:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("ReduceMean", ["vectors"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("LpNormalization", ["mean"], ["sentence_embedding"], axis=1, p=2),
    ]
    output = helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, [1, table.shape[1]])
    return helper.make_graph(
        nodes, "embedding", [_ids("input_ids")], [output], [numpy_helper.from_array(table, "table")]
    )


def _reranker_graph(table: np.ndarray[Any, Any]) -> onnx.GraphProto:
    one = numpy_helper.from_array(np.array(1.0, dtype=np.float32), "one")
    scale = numpy_helper.from_array(np.array(2.0, dtype=np.float32), "scale")
    last = numpy_helper.from_array(np.array([2]), "last")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["token_type_ids"], ["types"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["types", "last"], ["in_document"]),
        helper.make_node("Sub", ["one", "in_document"], ["in_query"]),
        *_mean("query"),
        *_mean("document"),
        helper.make_node("Mul", ["query", "document"], ["products"]),
        helper.make_node("ReduceSum", ["products"], ["dot"], keepdims=0),
        helper.make_node("Mul", ["dot", "scale"], ["logit"]),
        helper.make_node("Reshape", ["logit", "shape"], ["logits"]),
    ]
    shape = numpy_helper.from_array(np.array([1, 1]), "shape")
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1])
    constants = [numpy_helper.from_array(table, "table"), one, scale, last, shape]
    return helper.make_graph(nodes, "reranker", [_ids("input_ids"), _ids("token_type_ids")], [output], constants)


def _mean(part: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Mul", ["vectors", f"in_{part}"], [f"{part}_vectors"]),
        helper.make_node("ReduceMean", [f"{part}_vectors"], [part], axes=[1], keepdims=0),
    ]


def _ids(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, [1, "length"])
