"""What happens to a release on disk after it was proven, and machines other than the one that proved it."""

import json
import shutil
from pathlib import Path
from typing import Any

import tiny_models

from pipeline import golden
from pipeline.embedder import Embedder
from pipeline.reranker import Reranker

QUERY, TEXT, OTHER = "반품은 며칠 안에", "반품은 상품을 받은 날부터 7일 안에 할 수 있습니다.", "Shipping is free."


def flip(file: Path) -> None:
    """Another byte in the middle, as a failing disk leaves it: neither size nor name shows it."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def truncate(file: Path) -> None:
    """Only the first half, as an interrupted copy leaves it."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(file: Path) -> None:
    file.unlink()


def own_models(releases: Path, folder: Path) -> Path:
    """A copy of the models folder that a test may damage, with a previous reranker, tiny-reranker-0."""
    models = shutil.copytree(releases, folder / "models", symlinks=True)
    tiny_models.write_reranker_release(models / "releases", release="tiny-reranker-0")
    (models / "rerank.previous").symlink_to("releases/tiny-reranker-0")
    return models


def environment(models: Path) -> dict[str, str]:
    """The variables that name a models folder."""
    return {"EMBED_ONNX_DIR": str(models / "emb"), "RERANK_ONNX_DIR": str(models / "rerank")}


def prove_elsewhere(release: Path, *, agrees: bool, cpu: str = "x86-none", onnxruntime: str | None = None) -> None:
    """Make the release one that another machine proved, whose results were the same as here, or others."""
    manifest = json.loads((release / "manifest.json").read_text(encoding="utf-8"))
    manifest["cpu"]["class"] = cpu
    if onnxruntime:
        manifest["versions"]["onnxruntime"] = onnxruntime
    there = TEXT if agrees else OTHER
    manifest["golden"] = [_result(release, manifest["kind"], there)]
    (release / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _result(release: Path, kind: str, there: str) -> dict[str, Any]:
    if kind == "embedding":
        vector = Embedder(release).encode_array([there], input_type="passage")[0]
        return {"text": TEXT, "input_type": "passage", "vector16": golden.pack(vector)}
    return {"query": QUERY, "text": TEXT, "score": Reranker(release).score(QUERY, [there])[0]}
