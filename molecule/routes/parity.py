"""Run on the VM by the export environment: does each export route give what the reference library gives?

Takes the demo's e5-small through fetch, export and optimise, and small models with random weights made here in the
shapes that differ (a Dense module after pooling, token types, pad ID 1, CLS pooling, a repository's own ONNX file).
Compares what the serving code then computes with sentence-transformers or transformers on texts of its own. One JSON
line of figures; exit code 1 and a sentence where a model differs.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)
from transformers.utils import logging

from pipeline.embedder import Embedder
from pipeline.reranker import Reranker

LEAST_COSINE = 0.9999
MOST_LOGIT_CHANGE = 1e-3
AXES = {0: "batch", 1: "length"}
WITH_TENSOR_FILE = ("xlmr-pairs", "cls-pooling")
SHAPE = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "intermediate_size": 128}
PAIR = (
    "할인 쿠폰은 어디에 쓰나요?",
    "쿠폰은 결제 화면에서 한 장만 쓸 수 있고, 남은 금액은 돌려받지 못합니다.",
)
TEXTS = [
    *PAIR,
    "short",
    "A coupon covers one order; what is left of it is not paid out. " * 12,
    "Straße, naïve, 東京, 😀",
]


def small_tokenizer(folder: Path, inputs: list[str]) -> BertTokenizerFast:
    """WordPiece over single characters, which separates a pair by token types as BERT's does."""
    characters = sorted({letter for text in TEXTS for letter in text.lower() if not letter.isspace()})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{letter}" for letter in characters)]
    tokenizer = Tokenizer(WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer_file = str(folder / "tokenizer.json")
    return BertTokenizerFast(tokenizer_file=tokenizer_file, model_max_length=128, model_input_names=inputs)


def multilingual_tokenizer(snapshot: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of XLM-R models, whose padding ID is 1."""
    return AutoTokenizer.from_pretrained(str(snapshot), model_max_length=128)


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """Weights wide enough that a wrong path through the graph shows; those of fresh models nearly cancel out."""
    torch.manual_seed(7)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.normal_(0, 0.15)
    return model.eval()


def save_embedding(folder: Path, model: Any, tokenizer: Any, pooling: str, *modules: torch.nn.Module) -> None:
    """A sentence-transformers folder of a plain model and what follows it."""
    plain = folder.with_name(f"{folder.name}-plain")
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    transformer = Transformer(str(plain), max_seq_length=128)
    width = transformer.get_embedding_dimension()
    SentenceTransformer(modules=[transformer, Pooling(width, pooling_mode=pooling), *modules]).save(str(folder))


def e5_small(folder: Path, snapshot: Path) -> dict[str, Any]:
    """The default embedding itself, with its trained weights and its whole length."""
    shutil.copytree(snapshot, folder)
    return {"kind": "embedding", "route": "sentence-transformers", "dimension": 384, "max_length": 512}


def dense(folder: Path, snapshot: Path) -> dict[str, Any]:
    """The shape of distiluse: DistilBERT, mean pooling, then another width through tanh, not normalised."""
    folder.mkdir()
    config = DistilBertConfig(dim=64, n_layers=2, n_heads=4, hidden_dim=128, output_hidden_states=True)
    head = Dense(64, 48, activation_function=torch.nn.Tanh())
    tokenizer = small_tokenizer(folder, ["input_ids", "attention_mask"])
    save_embedding(folder, spread(DistilBertModel(config)), tokenizer, "mean", spread(head))
    return {"kind": "embedding", "route": "sentence-transformers", "dimension": 48, "normalize": False}


def cls_pooling(folder: Path, snapshot: Path) -> dict[str, Any]:
    """The shape of bge-m3: XLM-R, the first token's vector, normalised."""
    tokenizer = multilingual_tokenizer(snapshot)
    config = XLMRobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=130, pad_token_id=1, **SHAPE)
    save_embedding(folder, spread(XLMRobertaModel(config)), tokenizer, "cls", Normalize())
    return {"kind": "embedding", "route": "sentence-transformers", "pooling": "cls", "dimension": 64}


def bert_pairs(folder: Path, snapshot: Path) -> dict[str, Any]:
    """The shape of ms-marco-MiniLM: BERT with token types."""
    folder.mkdir()
    tokenizer = small_tokenizer(folder, ["input_ids", "token_type_ids", "attention_mask"])
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=1, **SHAPE))
    spread(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"kind": "reranker", "route": "transformers"}


def xlmr_pairs(folder: Path, snapshot: Path) -> dict[str, Any]:
    """The shape of mmarco-mMiniLM and bge-reranker: XLM-R, whose positions are counted from the padding ID."""
    tokenizer = multilingual_tokenizer(snapshot)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=130, pad_token_id=1, num_labels=1, **SHAPE
    )
    spread(XLMRobertaForSequenceClassification(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"kind": "reranker", "route": "transformers"}


def prebuilt(folder: Path, snapshot: Path) -> dict[str, Any]:
    """A repository with an ONNX file of its own, which gives token vectors: pooling is the serving code's."""
    cls_pooling(folder, snapshot)
    model = XLMRobertaModel.from_pretrained(folder, attn_implementation="eager")
    (folder / "onnx").mkdir()
    ids = torch.tensor([[0, 5, 6, 2]])
    with torch.no_grad():
        torch.onnx.export(
            model,
            (ids, torch.ones_like(ids)),
            str(folder / "onnx" / "model.onnx"),
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state"],
            dynamic_axes={"input_ids": AXES, "attention_mask": AXES, "last_hidden_state": AXES},
            dynamo=False,
        )
    return {"kind": "embedding", "route": "prebuilt", "pooling": "cls", "dimension": 64}


MODELS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "e5-small": e5_small,
    "dense": dense,
    "cls-pooling": cls_pooling,
    "bert-pairs": bert_pairs,
    "xlmr-pairs": xlmr_pairs,
    "prebuilt": prebuilt,
}


def take_through(work: Path, name: str, source: dict[str, str], fields: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Fetch, export and optimise; the folder of the fused graph and what optimise said about its attention."""
    profile = {"name": name, "source": source, "max_length": 128, "licence": "MIT", "languages": ["ko", "en"], **fields}
    file = work / f"{name}.json"
    file.write_text(json.dumps(profile))
    folders = [f"--models-dir={work}", f"--cache-dir={work}/cache", f"--state-dir={work}/state", f"--profile={file}"]
    told: dict[str, Any] = {}
    for stage in ("fetch", "export", "optimise"):
        done = subprocess.run(
            [sys.executable, "-m", "modelbuild", stage, *folders],
            # As a model above 2 GB is exported: the tensors in a file of their own.
            env=os.environ | ({"FORCE_ONNX_EXTERNAL_DATA": "1"} if name in WITH_TENSOR_FILE else {}),
            capture_output=True,
            text=True,
            check=False,
        )
        if not done.stdout:
            raise SystemExit(f"{name}, {stage}: {done.stderr}")
        told = json.loads(done.stdout.splitlines()[-1])
        if done.returncode:
            raise SystemExit(f"{name}, {stage}: {told['error']}")
    return work / ".staging" / told["id"] / "fused", told


def embedding_difference(snapshot: Path, folder: Path, fields: dict[str, Any]) -> dict[str, float]:
    model = SentenceTransformer(str(snapshot), device="cpu", model_kwargs={"torch_dtype": "float32"})
    wanted = np.array([model.encode(text, normalize_embeddings=fields.get("normalize", True)) for text in TEXTS])
    found = np.array(Embedder(folder).encode_array(TEXTS))
    if found.shape != wanted.shape:
        raise SystemExit(f"{folder}: vectors of shape {found.shape}, expected {wanted.shape}")
    cosines = (wanted * found).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(found, axis=1)
    lengths = np.abs(np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1) - 1)
    directions = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    # Vectors that all point the same way would agree with anything.
    apart = 1 - float((directions @ directions.T)[~np.eye(len(TEXTS), dtype=bool)].max())
    return {
        "least_cosine": round(float(cosines.min()), 7),
        "most_length_change": round(float(lengths.max()), 7),
        "apart": round(apart, 4),
    }


def logit_difference(snapshot: Path, folder: Path) -> dict[str, float]:
    model = AutoModelForSequenceClassification.from_pretrained(str(snapshot)).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(snapshot))
    reranker = Reranker(folder)
    changes, logits = [], []
    for text in TEXTS[1:]:
        fed = tokenizer(PAIR[0], text, truncation="only_second", max_length=128, return_tensors="pt")
        with torch.no_grad():
            wanted = float(model(**fed).logits[0, 0])
        changes.append(abs(wanted - (reranker.logits(PAIR[0], [text])[0] or 0.0)))
        logits.append(wanted)
    # Four equal logits would agree with anything.
    return {"most_logit_change": round(max(changes), 7), "apart": round(max(logits) - min(logits), 4)}


def refusals(work: Path) -> dict[str, str]:
    """What must be refused at the export, and what it then says."""
    two_labels = AutoModelForSequenceClassification.from_pretrained(
        work / "bert-pairs", num_labels=2, ignore_mismatched_sizes=True
    )
    two_labels.save_pretrained(work / "two-labels")
    AutoTokenizer.from_pretrained(work / "bert-pairs").save_pretrained(work / "two-labels")
    own_code = work / "own-code"
    AutoModelForSequenceClassification.from_pretrained(work / "bert-pairs").save_pretrained(own_code)
    AutoTokenizer.from_pretrained(work / "bert-pairs").save_pretrained(own_code)
    config = json.loads((own_code / "config.json").read_text())
    config |= {"model_type": "their-own", "auto_map": {"AutoConfig": "their.Config", "AutoModel": "their.Model"}}
    (own_code / "config.json").write_text(json.dumps(config))
    asked: dict[str, tuple[dict[str, Any], str]] = {
        "two-labels": ({"kind": "reranker", "route": "transformers"}, "one label"),
        "own-code": ({"kind": "reranker", "route": "transformers"}, "remote_code"),
        "prebuilt": ({"kind": "reranker", "route": "prebuilt"}, "expected logits"),
        "dense": ({"kind": "embedding", "route": "sentence-transformers", "dimension": 64}, "48 dimensions"),
    }
    said = {}
    for name, (fields, expected) in asked.items():
        try:
            take_through(work, f"{name}-refused", {"type": "folder", "path": str(work / name)}, fields)
        except SystemExit as refusal:
            said[name] = str(refusal)
        if expected not in said.get(name, ""):
            raise SystemExit(f"{name}: expected a refusal that says {expected!r}, found {said.get(name, 'none')!r}")
    return said


def main() -> int:
    work, snapshot = Path(sys.argv[1]), Path(sys.argv[2])
    work.mkdir(parents=True)
    logging.set_verbosity_error()
    figures: dict[str, dict[str, Any]] = {}
    for name, make in MODELS.items():
        fields = make(work / name, snapshot)
        fused, told = take_through(work, name, {"type": "folder", "path": str(work / name)}, fields)
        if fields["kind"] == "embedding":
            found = embedding_difference(work / name, fused, fields)
        else:
            found = logit_difference(work / name, fused)
        figures[name] = {**found, "attention_fused": f"{told['attention']} of {told['layers']}"}
    print(json.dumps({"figures": figures, "refusals": refusals(work)}, ensure_ascii=False))
    wrong = [
        name
        for name, found in figures.items()
        if found.get("least_cosine", 1.0) < LEAST_COSINE
        or found.get("most_length_change", 0.0) > MOST_LOGIT_CHANGE
        or found.get("most_logit_change", 0.0) > MOST_LOGIT_CHANGE
        or found["apart"] < 10 * MOST_LOGIT_CHANGE
    ]
    if wrong:
        print(f"{', '.join(wrong)} differ from the reference library", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
