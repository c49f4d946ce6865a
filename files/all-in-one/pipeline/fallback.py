"""What may stand in for a missing ONNX model during development, when an environment variable asks for it."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.errors import ModelError
from pipeline.manifest import E5_NAME, E5_PREFIXES

WORD = re.compile(r"\w+")


class SentenceTransformersBackend:
    """The float model through sentence-transformers, which is not in the image: install it to use this."""

    def __init__(self, model_name: str, why: str) -> None:
        if not model_name:
            raise ModelError(f"EMBED_FALLBACK=sentence-transformers needs EMBED_MODEL to name a model. ({why})")
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415  (absent from the image)
        except ImportError as error:
            raise ModelError(
                f"EMBED_FALLBACK=sentence-transformers needs the package sentence-transformers: {error}. ({why})"
            ) from error
        self.why = f"Vectors come from sentence-transformers, as EMBED_FALLBACK asks: {why}"
        self._model = SentenceTransformer(model_name, device="cpu")
        self._prefixes = E5_PREFIXES if E5_NAME.search(model_name) else {}
        self.dim = int(self._model.get_sentence_embedding_dimension())

    def prefix(self, input_type: str | None) -> str:
        return self._prefixes.get(input_type or "query", "")

    def encode(self, texts: Sequence[str], prefix: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Vectors [n, dim] float32 of unit length."""
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        vectors = self._model.encode([prefix + text for text in texts], normalize_embeddings=True)
        return np.asarray(vectors, dtype=np.float32)


def overlap_scores(query: str, candidates: Sequence[str]) -> list[float]:
    """Share of the query's words that each candidate contains, 0..1."""
    wanted = set(WORD.findall(query.lower()))
    if not wanted:
        return [0.0] * len(candidates)
    return [len(wanted & set(WORD.findall(text.lower()))) / len(wanted) for text in candidates]
