"""Which model releases the operator wants, as the environment says."""

import os
from collections.abc import Mapping
from pathlib import Path

from store.errors import StoreError


def embedding_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The release EMBED_RELEASE names, else the folder EMBED_ONNX_DIR. StoreError if neither is set or there."""
    release, folder = environment.get("EMBED_RELEASE", ""), environment.get("EMBED_ONNX_DIR", "")
    if release:
        return embedding_release(release, environment)
    if not folder:
        raise StoreError("No embedding model is configured; set EMBED_RELEASE or EMBED_ONNX_DIR.")
    return Path(folder)


def embedding_release(release: str, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of an embedding release. StoreError if it is not there."""
    return _release_folder(release, Path(environment.get("EMBED_ONNX_DIR") or "/models/emb"), "embedding")


def reranker_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The release RERANK_RELEASE names; None leaves the choice to RERANK_ONNX_PATH and RERANK_ONNX_DIR."""
    release = environment.get("RERANK_RELEASE", "")
    if not release:
        return None
    return _release_folder(release, Path(environment.get("RERANK_ONNX_DIR") or "/models/rerank"), "reranker")


def _release_folder(release: str, link: Path, kind: str) -> Path:
    """releases/ID beside the link, or what the link itself shows, where only that is mounted."""
    folder = link.parent / "releases" / release
    if folder.is_dir():
        return folder
    manifest = link / "manifest.json"
    if manifest.is_file() and f'"{release}"' in manifest.read_text(encoding="utf-8"):
        return link
    raise StoreError(f"The {kind} release {release} is not in {folder.parent}; build it again, or restore the folder.")
