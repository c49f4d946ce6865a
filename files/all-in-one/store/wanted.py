"""Which model releases the operator wants, as the environment says, and which may serve in their place."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from store.errors import StoreError
from store.generations import Generation

DEFAULTS = {"EMBED": "/models/emb", "RERANK": "/models/rerank"}


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
    folder = _located(release, _link("EMBED", environment))
    if folder.is_dir():
        return folder
    raise StoreError(
        f"The embedding release {release} is not in {folder.parent}; build it again, or restore the folder."
    )


def embedding_candidates(generation: Generation, environment: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """The generation's release, then what may serve in its place: the other releases of its embedding space."""
    link = _link("EMBED", environment)
    wanted = _located(generation.release, link)
    yield wanted
    seen = {wanted.resolve()}
    for folder in (_previous(link), link, *sorted((link.parent / "releases").glob("[!.]*"))):
        if folder.resolve() not in seen and _space(folder) == generation.space:
            yield folder
        seen.add(folder.resolve())


def reranker_candidates(environment: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """The release RERANK_RELEASE names, else RERANK_ONNX_PATH or RERANK_ONNX_DIR; then the previous release."""
    link = _link("RERANK", environment)
    release, file = environment.get("RERANK_RELEASE", ""), environment.get("RERANK_ONNX_PATH", "")
    wanted = _located(release, link) if release else Path(file) if file else link
    yield wanted
    previous = _previous(link)
    if previous.is_symlink() and previous.resolve() != wanted.resolve():
        yield previous


def _located(release: str, link: Path) -> Path:
    """releases/ID beside the link, or what the link itself shows, where only that is mounted."""
    folder = link.parent / "releases" / release
    return link if not folder.is_dir() and _manifest(link).get("id") == release else folder


def _link(kind: str, environment: Mapping[str, str]) -> Path:
    return Path(environment.get(f"{kind}_ONNX_DIR") or DEFAULTS[kind])


def _previous(link: Path) -> Path:
    return link.with_name(f"{link.name}.previous")


def _space(folder: Path) -> object:
    return _manifest(folder).get("space")


def _manifest(folder: Path) -> dict[str, Any]:
    """A folder's manifest, empty where none can be read."""
    try:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
