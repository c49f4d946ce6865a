"""Does a release still compute what was proven? Its manifest keeps results to compare with."""

import base64
from typing import Any

import numpy as np
import onnxruntime as ort

from pipeline.cpu import detect
from pipeline.embedder import Embedder
from pipeline.errors import NotAsProvenError
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
    cpu, versions = manifest.get("cpu", {}), manifest.get("versions", {})
    return bool(cpu.get("class") == detect().name and versions.get("onnxruntime") == ort.__version__)


def check(model: Embedder | Reranker) -> float:
    """Worst agreement with the golden results: a cosine, or 1 - score drift. NotAsProvenError below the limit.

    A bare folder has nothing to compare with and gives 1.0; a release without golden results is refused.
    """
    manifest = model.folder.manifest if model.folder else {}
    entries = manifest.get("golden", [])
    if manifest and not entries:
        raise NotAsProvenError(
            f"{model.release_id} was proven on another kind of machine and has no golden results to compare with."
        )
    limit = MINIMUM_COSINE if isinstance(model, Embedder) else 1.0 - MAXIMUM_DRIFT
    try:
        worst = min((_agreement(model, entry) for entry in entries), default=1.0)
    except (KeyError, TypeError, ValueError) as error:
        raise NotAsProvenError(f"{model.release_id}: its golden results cannot be read ({error}).") from error
    if not worst >= limit:
        raise NotAsProvenError(
            f"{model.release_id}: this machine's results agree only to {worst:.4f} with those of the machine that "
            f"proved it (at least {limit} is needed)."
        )
    return worst


def _agreement(model: Embedder | Reranker, entry: dict[str, Any]) -> float:
    if isinstance(model, Reranker):
        score = model.score(entry["query"], [entry["text"]])[0]
        assert score is not None
        return 1.0 - abs(score - float(entry["score"]))
    vector = model.encode_array([entry["text"]], input_type=entry["input_type"])[0]
    golden = unpack(entry["vector16"])
    return float(vector @ golden / (np.linalg.norm(vector) * np.linalg.norm(golden)))
