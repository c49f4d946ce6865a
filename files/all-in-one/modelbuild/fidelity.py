"""Float graphs must equal what they come from: the export its PyTorch model, the fused graph its export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelbuild.errors import BuildError
from modelbuild.profile import Profile
from modelbuild.texts import read_gate_texts, sanity_triples
from modelbuild.thresholds import EXPORT_MAX_LOGIT_CHANGE, EXPORT_MIN_COSINE
from pipeline.embedder import Embedder
from pipeline.reranker import Reranker

TEXTS = 8


def fidelity_texts(profile: Profile) -> list[Any]:
    """A few texts (embeddings) or pairs (rerankers), the gate's longest and shortest among them."""
    gate = read_gate_texts(profile.languages)
    by_length = sorted(gate.passages, key=len)
    chosen = by_length[: TEXTS // 2] + by_length[-TEXTS // 2 :]
    if profile.kind == "embedding":
        return chosen
    sanity = [(query, text) for query, good, bad in sanity_triples(profile.languages) for text in (good, bad)]
    return [*zip(gate.queries, chosen, strict=False), *sanity]


def results(folder: Path, profile: Profile, texts: Sequence[Any]) -> list[Any]:
    """What the serving code computes: vectors of texts with the default prefix, or logits of pairs."""
    if profile.kind == "embedding":
        return list(Embedder(folder).encode_array(texts))
    reranker = Reranker(folder)
    return [reranker.logits(query, [document])[0] for query, document in texts]


def compare_with_reference(
    folder: Path, profile: Profile, texts: Sequence[Any], reference: Sequence[Any], what: str
) -> dict[str, float]:
    """Figures of the agreement; BuildError when it is not that of two float computations."""
    return compare(profile, results(folder, profile, texts), reference, what)


def compare(profile: Profile, computed: Sequence[Any], reference: Sequence[Any], what: str) -> dict[str, float]:
    if profile.kind == "embedding":
        left, right = np.asarray(computed, np.float64), np.asarray(reference, np.float64)
        cosines = (left * right).sum(1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
        worst = float(cosines.min())
        if not worst >= EXPORT_MIN_COSINE:
            raise BuildError(
                f"{profile.name}: {what} agrees with its original only to a cosine of {worst:.5f}, expected at least "
                f"{EXPORT_MIN_COSINE}. Check the profile's route, pooling and max_length."
            )
        return {"min_cosine": round(worst, 6)}
    change = float(np.abs(np.asarray(computed, np.float64) - np.asarray(reference, np.float64)).max())
    if not change <= EXPORT_MAX_LOGIT_CHANGE:
        raise BuildError(
            f"{profile.name}: {what} differs from its original by {change:.4f} in a logit, expected at most "
            f"{EXPORT_MAX_LOGIT_CHANGE}. Check the profile's route and max_length."
        )
    return {"max_logit_change": round(change, 6)}
