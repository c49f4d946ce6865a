"""demo-reranker: the network of pair_scorer.py, trained on faq/train.jsonl from the demo's embedding.

The text it learns from shares no passage and no query with the sample corpus (tests/test_demo_models.py). Its
licence is the embedding's, MIT. Training is a fixed number of steps with a fixed seed.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import BertModel

from modelbuild.demo.pair_scorer import PairScorer
from modelbuild.demo.training import train
from modelbuild.progress import in_words, say

FAQ = Path(__file__).parent.parent / "faq" / "train.jsonl"
PREFIXES = {"query": "query: ", "passage": "passage: "}
MAX_DIFFERENCE = 1e-3  # between a logit of the network and of its exported graph
SEED = 20


def build(out: Path, embedding: Path) -> dict[str, Any]:
    """Train from the checkpoint folder `embedding`; write model.onnx, tokenizer.json and config.json to `out`."""
    started = time.monotonic()
    torch.manual_seed(SEED)
    bert = BertModel.from_pretrained(str(embedding), attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(embedding / "tokenizer.json"))
    rows = [json.loads(line) for line in FAQ.read_text(encoding="utf-8").splitlines()]
    queries = [PREFIXES["query"] + query for row in rows for query in row["queries"]]
    answers = [number for number, row in enumerate(rows) for _ in row["queries"]]
    passages = [PREFIXES["passage"] + row["passage"] for row in rows]
    head = train(bert, tokenizer, queries, passages, answers)
    tokenizer.post_processor = _pair_template(tokenizer)
    tokenizer.save(str(out / "tokenizer.json"))
    shutil.copyfile(embedding / "config.json", out / "config.json")
    pairs = [(row["queries"][0], row["passage"]) for row in rows[::20]]
    difference = _export(PairScorer(bert, head).eval(), tokenizer, out / "model.onnx", pairs)
    figures = {"queries": len(queries), "difference": difference, "seconds": round(time.monotonic() - started, 1)}
    say("fetch", f"trained demo-reranker: {in_words(figures)}")
    return figures


def _pair_template(tokenizer: Tokenizer) -> Any:
    """A pair becomes what the embedding reads twice: `<s> query: A </s>` of type 0, `<s> passage: B </s>` of type 1."""
    special: list[Any] = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    for name, prefix in PREFIXES.items():
        encoding = tokenizer.encode(prefix.rstrip(), add_special_tokens=False)
        special.append({"id": f"<{name}>", "ids": encoding.ids, "tokens": encoding.tokens})
    return TemplateProcessing(
        single="<s> <passage> $A </s>",
        pair="<s>:0 <query>:0 $A:0 </s>:0 <s>:1 <passage>:1 $B:1 </s>:1",
        special_tokens=special,
    )


def _export(scorer: PairScorer, tokenizer: Tokenizer, path: Path, pairs: list[tuple[str, str]]) -> float:
    """Write the ONNX graph; return the largest difference of its logits. RuntimeError above MAX_DIFFERENCE."""
    import onnxruntime  # noqa: PLC0415

    inputs = [_inputs(tokenizer, *pair) for pair in pairs]
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"logits": {0: "batch"}}
    with torch.no_grad():
        torch.onnx.export(
            scorer,
            inputs[0],
            str(path),
            input_names=names,
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
        expected = [float(scorer(*fed)) for fed in inputs]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = [{name: tensor.numpy() for name, tensor in zip(names, fed, strict=True)} for fed in inputs]
    found = [float(session.run(None, feed)[0].item()) for feed in feeds]
    difference = max(abs(a - b) for a, b in zip(expected, found, strict=True))
    if difference > MAX_DIFFERENCE:
        raise RuntimeError(
            f"the exported logits differ by {difference:.1e} from the network's; at most {MAX_DIFFERENCE}"
        )
    return difference


def _inputs(tokenizer: Tokenizer, query: str, passage: str) -> tuple[Tensor, Tensor, Tensor]:
    encoding = tokenizer.encode(query, passage)
    ids = torch.tensor([encoding.ids])
    return ids, torch.ones_like(ids), torch.tensor([encoding.type_ids])
