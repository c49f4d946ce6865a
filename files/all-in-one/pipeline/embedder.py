"""Texts to vectors."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine import Engine
from pipeline.errors import ModelError
from pipeline.fallback import SentenceTransformersBackend
from pipeline.manifest import ModelFolder, read_folder
from pipeline.tokens import TextTokenizer, TokenSequence

INPUT_TYPES = ("query", "passage")
TOKENISED_AT_ONCE = 512


@dataclass(frozen=True)
class EncodedTexts:
    """Vectors [n, dim] float32 in the caller's order; tokens used per text, and whether each was cut to fit."""

    vectors: np.ndarray[Any, np.dtype[np.float32]]
    tokens: list[int]
    truncated: list[bool]


class Embedder:
    """Sentence embeddings from an ONNX folder.

    Without arguments EMBED_ONNX_PATH (a file) or EMBED_ONNX_DIR says where the model is. EMBED_MODEL names it. Only
    EMBED_FALLBACK=sentence-transformers allows PyTorch in its place; `degraded` then says why, otherwise it is None.
    """

    def __init__(self, onnx_dir: str | Path | None = None, *, threads: int | None = None) -> None:
        self.degraded: str | None = None
        self.folder: ModelFolder | None = None
        name = os.environ.get("EMBED_MODEL", "")
        try:
            self.folder = read_folder(onnx_dir or _configured_path(), "embedding", name)
            self._load(self.folder, threads)
        except ModelError as error:
            if os.environ.get("EMBED_FALLBACK") != "sentence-transformers":
                raise
            self.folder = None
            self._fallback = SentenceTransformersBackend(name, str(error))
            self.dim = self._fallback.dim
            self.release_id = ""
            self.degraded = self._fallback.why

    def _load(self, folder: ModelFolder, threads: int | None) -> None:
        self._tokens = TextTokenizer(folder.tokenizer_file, folder.max_length)
        self.engine = Engine(folder.file, output=folder.output, threads=threads)
        if folder.output is None and "sentence_embedding" in self.engine.outputs:
            self.engine.output = "sentence_embedding"
        self.release_id = folder.release_id
        self.dim = int(self._embed(self._tokens.singles([""])[0]).shape[0])
        if folder.dimension not in (None, self.dim):
            raise ModelError(
                f"{folder.file}: gives {self.dim} dimensions where its profile says {folder.dimension}. "
                "Correct the profile's route or dimension and build the model again."
            )

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer (tokenizers.Tokenizer) without truncation and padding."""
        self._need_onnx("a tokenizer")
        return self._tokens.raw

    @property
    def max_length(self) -> int:
        """Tokens one text may have, special tokens and prefix included."""
        self._need_onnx("a token limit")
        return self._tokens.max_length

    def count_tokens(self, text: str, *, input_type: str | None = None) -> int:
        """Tokens the text would take with its prefix and special tokens, not truncated."""
        self._need_onnx("token counts")
        return self._tokens.count(self._prefix(input_type) + text)

    def encode(self, texts: Sequence[str], *, input_type: str | None = None) -> list[list[float]]:
        """Vectors in the order of `texts`. `input_type` is query, passage, or None for the model's default."""
        vectors: list[list[float]] = self.encode_array(texts, input_type=input_type).tolist()
        return vectors

    def encode_array(
        self, texts: Sequence[str], *, input_type: str | None = None
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """As `encode`, as an array [n, dim] float32."""
        return self.encode_with_info(texts, input_type=input_type).vectors

    def encode_with_info(self, texts: Sequence[str], *, input_type: str | None = None) -> EncodedTexts:
        """As `encode_array`, with the tokens each text took and whether it was truncated."""
        if isinstance(texts, str):
            raise TypeError("encode() takes a list of texts; wrap a single text in a list.")
        prefix = self._prefix(input_type)
        if self.folder is None:
            return EncodedTexts(self._fallback.encode(texts, prefix), [0] * len(texts), [False] * len(texts))
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        tokens: list[int] = []
        truncated: list[bool] = []
        for start in range(0, len(texts), TOKENISED_AT_ONCE):
            sequences = self._tokens.singles([prefix + text for text in texts[start : start + TOKENISED_AT_ONCE]])
            self._embed_into(vectors[start : start + len(sequences)], sequences)
            tokens += [len(sequence.ids) for sequence in sequences]
            truncated += [sequence.truncated for sequence in sequences]
        return EncodedTexts(vectors, tokens, truncated)

    def _embed_into(self, rows: np.ndarray[Any, Any], sequences: list[TokenSequence]) -> None:
        def embed(index: int) -> None:
            rows[index] = self._embed(sequences[index])

        # Longest first: the threads then finish together.
        self.engine.each(embed, sorted(range(len(sequences)), key=lambda i: -len(sequences[i].ids)))

    def _embed(self, sequence: TokenSequence) -> np.ndarray[Any, np.dtype[np.float32]]:
        assert self.folder is not None
        output = self.engine.run(sequence.ids, sequence.type_ids)
        if output.ndim == 2:
            output = output[0] if self.folder.pooling == "cls" else output.mean(axis=0)
        vector = output.astype(np.float32)
        if self.folder.normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        if not np.isfinite(vector).all():
            raise ModelError(f"{self.folder.file}: gave a vector that is not finite. Build the model again.")
        return vector

    def _prefix(self, input_type: str | None) -> str:
        if input_type not in (None, *INPUT_TYPES):
            raise ValueError(f"input_type {input_type!r} is none of {', '.join(INPUT_TYPES)}.")
        if self.folder is None:
            return self._fallback.prefix(input_type)
        return self.folder.prefixes.get(input_type or self.folder.default_input_type or "", "")

    def _need_onnx(self, what: str) -> None:
        if self.folder is None:
            raise ModelError(f"The fallback gives no {what.removeprefix('a ')}: {self.degraded}")


def _configured_path() -> str:
    path = os.environ.get("EMBED_ONNX_PATH") or os.environ.get("EMBED_ONNX_DIR")
    if not path:
        raise ModelError("No embedding model is configured: set EMBED_ONNX_DIR (a folder) or EMBED_ONNX_PATH (a file).")
    return path
