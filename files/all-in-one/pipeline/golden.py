"""Does a release still compute what was proven? Its manifest keeps results to compare with."""

import base64
from typing import Any

import numpy as np
import onnxruntime as ort

from pipeline.cpu import detect
from pipeline.embedder import Embedder
from pipeline.errors import ModelError
from pipeline.reranker import Reranker

MINIMUM_COSINE = 0.995
MAXIMUM_DRIFT = 0.03


def pack(vector: np.ndarray[Any, Any]) -> str:
    """A vector as base64 of little-endian float16."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode("ascii")


def unpack(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32)


def proven_here(manifest: dict[str, Any]) -> bool:
    """True when this CPU's class and this onnxruntime are those the release was proven with."""
    return bool(manifest["cpu"]["class"] == detect().name and manifest["versions"]["onnxruntime"] == ort.__version__)


def check(model: Embedder | Reranker) -> float:
    """Worst agreement with the golden results: a cosine, or 1 - score drift. ModelError below the limit.

    A bare folder has nothing to compare with and gives 1.0.
    """
    entries = model.folder.manifest.get("golden", []) if model.folder else []
    if isinstance(model, Embedder):
        worst = min((_cosine(model, entry) for entry in entries), default=1.0)
        limit = MINIMUM_COSINE
    else:
        worst = min((1.0 - _drift(model, entry) for entry in entries), default=1.0)
        limit = 1.0 - MAXIMUM_DRIFT
    if worst < limit:
        raise ModelError(
            f"{model.release_id}: this machine's results agree only to {worst:.4f} with those of the machine that "
            f"proved the model (at least {limit} is needed). Build the model again on this machine."
        )
    return worst


def _cosine(model: Embedder, entry: dict[str, Any]) -> float:
    vector = model.encode_array([entry["text"]], input_type=entry["input_type"])[0]
    golden = unpack(entry["vector16"])
    return float(vector @ golden / (np.linalg.norm(vector) * np.linalg.norm(golden)))


def _drift(model: Reranker, entry: dict[str, Any]) -> float:
    score = model.score(entry["query"], [entry["text"]])[0]
    assert score is not None
    return abs(score - float(entry["score"]))
