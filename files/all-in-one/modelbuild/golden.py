"""Results to recognise a proven model by, wherever it is loaded later."""

from pathlib import Path
from typing import Any

from modelbuild.profile import Profile
from modelbuild.texts import GateTexts
from pipeline.embedder import Embedder
from pipeline.golden import pack
from pipeline.reranker import Reranker

COUNT = 4


def golden_results(folder: Path, profile: Profile, texts: GateTexts) -> list[dict[str, Any]]:
    """A few short and one long result of the model in `folder`: vectors as base64 of float16, or scores."""
    chosen = _chosen(texts)
    if profile.kind == "embedding":
        embedder = Embedder(folder)
        wanted = [(texts.queries[i], "query") for i in chosen] + [(max(texts.passages, key=len), "passage")]
        return [
            {"text": text, "input_type": kind, "vector16": pack(embedder.encode_array([text], input_type=kind)[0])}
            for text, kind in wanted
        ]
    reranker = Reranker(folder)
    pairs = [(texts.queries[i], texts.passages[texts.passage_of[i]]) for i in chosen]
    return [{"query": query, "text": text, "score": reranker.score(query, [text])[0]} for query, text in pairs]


def _chosen(texts: GateTexts) -> list[int]:
    step = max(1, len(texts.queries) // COUNT)
    return list(range(0, len(texts.queries), step))[:COUNT]
