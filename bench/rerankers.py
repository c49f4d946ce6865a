"""Ways to score candidates against a query: `scores(query, candidates)`, each 0..1, in the candidates' order."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.embedders import ORIGINAL_THREADS, padded_feed, padding_tokenizer


class OriginalReranker:
    """The original bundle's `rerank`: all pairs in one padded batch, two threads."""

    def __init__(self, graph: Path, tokenizer: Path) -> None:
        import onnxruntime as ort  # noqa: PLC0415

        options = ort.SessionOptions()
        options.intra_op_num_threads = ORIGINAL_THREADS
        self._session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._tokenizer = padding_tokenizer(tokenizer)

    def scores(self, query: str, candidates: Sequence[str]) -> list[float]:
        encodings = self._tokenizer.encode_batch([(query, candidate) for candidate in candidates])
        logits = self._session.run(["logits"], padded_feed(self._session, encodings))[0].reshape(-1)
        return [float(score) for score in 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))]


class CrossEncoderReranker:
    """The float model through sentence-transformers."""

    def __init__(self, snapshot: Path) -> None:
        from sentence_transformers import CrossEncoder  # noqa: PLC0415

        self._model = CrossEncoder(str(snapshot), device="cpu", local_files_only=True)

    def scores(self, query: str, candidates: Sequence[str]) -> list[float]:
        pairs = [(query, candidate) for candidate in candidates]
        return [float(score) for score in self._model.predict(pairs, show_progress_bar=False)]


class OneboxReranker:
    """The box's own pipeline with the active release."""

    def __init__(self, release: Path) -> None:
        from pipeline.reranker import Reranker  # noqa: PLC0415

        self._reranker = Reranker(release)

    def scores(self, query: str, candidates: Sequence[str]) -> list[float]:
        return [score for score in self._reranker.score(query, candidates) if score is not None]
