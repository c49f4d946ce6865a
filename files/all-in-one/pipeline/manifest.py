"""What a model folder says about itself: a release's manifest.json, or what can be read off a bare ONNX folder."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError, NotAsProvenError

SCHEMA = 1
NEEDED = {"id": str, "kind": str, "profile": dict, "file": str, "output": str, "max_length": int}
BARE_FILES = ("model.int8.onnx", "model_quantized.onnx", "model.onnx")
DEFAULT_MAX_LENGTH = 512
# E5 models were trained with these prefixes; no file of theirs says so.
E5_NAME = re.compile(r"(^|[/_-])(multilingual-)?e5-(small|base|large)(-v2)?($|[/_-])", re.IGNORECASE)
E5_PREFIXES = {"query": "query: ", "passage": "passage: "}


@dataclass(frozen=True)
class ModelFolder:
    """One servable model. `release_id` and `manifest` are empty for a bare folder."""

    folder: Path
    file: Path
    kind: str
    max_length: int
    output: str | None = None
    pooling: str = "mean"
    normalize: bool = True
    prefixes: dict[str, str] = field(default_factory=dict)
    default_input_type: str | None = None
    dimension: int | None = None
    release_id: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / "tokenizer.json"


def read_folder(path: str | Path, kind: str, model_name: str = "") -> ModelFolder:
    """Read a release folder, a bare folder, or a bare folder named by its .onnx file.

    `kind` is embedding or reranker; `model_name` (EMBED_MODEL, RERANK_MODEL) only helps with a bare folder.
    ModelError when nothing servable of that kind is there.
    """
    path = Path(path).resolve()
    chosen = path if path.suffix == ".onnx" else None
    folder = path.parent if chosen else path
    if not folder.is_dir() or (chosen and not chosen.is_file()):
        raise ModelError(f"{path}: there is no such model. Build one, or correct the path.")
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder}: has no tokenizer.json, which is needed beside the ONNX file. Export it again.")
    if (folder / "manifest.json").is_file():
        return _from_manifest(folder, kind)
    return _from_bare_folder(folder, chosen or _bare_file(folder), kind, model_name)


def check_files(model: ModelFolder) -> None:
    """Read every file of a release. NotAsProvenError for the first that is not what the manifest states.

    A bare folder states nothing to compare with.
    """
    if not model.manifest:
        return
    stated = model.manifest.get("files")
    stated = stated if isinstance(stated, dict) else {}
    for file in (model.file, model.tokenizer_file):
        if file.relative_to(model.folder).as_posix() not in stated:
            raise NotAsProvenError(f"{model.folder}/manifest.json states no sha256 of {file.name}.")
    for name in stated:
        if not (model.folder / name).is_file():
            raise NotAsProvenError(f"{model.folder / name} is missing, its release's manifest.json states it.")
    # Small files first: damage among them is found before a large one is read.
    for name in sorted(stated, key=lambda name: (model.folder / name).stat().st_size):
        _check_file(model.folder / name, str(stated[name]))


def _check_file(path: Path, stated: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != stated:
        raise NotAsProvenError(
            f"{path} was damaged after its release: it has {path.stat().st_size} bytes with sha256 {found[:12]}…, "
            f"its manifest.json states sha256 {stated[:12]}…."
        )


def _from_manifest(folder: Path, kind: str) -> ModelFolder:
    manifest = _read_json(folder / "manifest.json")
    if manifest.get("schema") != SCHEMA:
        raise ModelError(
            f"{folder}/manifest.json: schema {manifest.get('schema')!r} is not {SCHEMA}. "
            "Build the model again with this version."
        )
    if wrong := [name for name, sort in NEEDED.items() if not isinstance(manifest.get(name), sort)]:
        raise ModelError(f"{folder}/manifest.json: states no usable {', '.join(wrong)}. Build the model again.")
    if manifest["kind"] != kind:
        raise ModelError(f"{folder}: is of kind {manifest['kind']}, expected {kind}.")
    profile = manifest["profile"]
    file = folder / manifest["file"]
    if not file.is_file():
        raise ModelError(f"{folder}: manifest.json names {manifest['file']}, which is missing. Build the model again.")
    return ModelFolder(
        folder=folder,
        file=file,
        kind=kind,
        max_length=int(manifest["max_length"]),
        output=manifest["output"],
        pooling=profile.get("pooling") or "mean",
        normalize=bool(profile.get("normalize", True)),
        prefixes=dict(profile.get("prefixes") or {}),
        default_input_type=profile.get("default_input_type"),
        dimension=manifest.get("dimension"),
        release_id=manifest["id"],
        manifest=manifest,
    )


def _from_bare_folder(folder: Path, file: Path, kind: str, model_name: str) -> ModelFolder:
    prefixes = _bare_prefixes(folder, model_name) if kind == "embedding" else {}
    return ModelFolder(
        folder=folder,
        file=file,
        kind=kind,
        max_length=stated_max_length(folder),
        pooling=_bare_pooling(folder),
        prefixes=prefixes,
        default_input_type="query" if "query" in prefixes else None,
    )


def _bare_file(folder: Path) -> Path:
    for name in BARE_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(f"{folder}: holds none of {', '.join(BARE_FILES)}. Export the model again.")


def _bare_prefixes(folder: Path, model_name: str) -> dict[str, str]:
    prompts = _optional_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    document = prompts.get("passage") or prompts.get("document") or ""
    if prompts.get("query") or document:
        return {"query": prompts.get("query") or "", "passage": document}
    origin = str(_optional_json(folder / "config.json").get("_name_or_path") or "")
    if E5_NAME.search(model_name) or E5_NAME.search(origin):
        return dict(E5_PREFIXES)
    return {}


def _bare_pooling(folder: Path) -> str:
    return "cls" if _optional_json(folder / "1_Pooling" / "config.json").get("pooling_mode_cls_token") else "mean"


def stated_max_length(folder: Path) -> int:
    """The smallest length any of the folder's files states; tokenizers write 1e30 for "not known"."""
    stated = (
        _optional_json(folder / "sentence_bert_config.json").get("max_seq_length"),
        _optional_json(folder / "tokenizer_config.json").get("model_max_length"),
        _optional_json(folder / "config.json").get("max_position_embeddings"),
    )
    return int(min([value for value in stated if value and value < 1e6], default=DEFAULT_MAX_LENGTH))


def _optional_json(path: Path) -> dict[str, Any]:
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}). Build the model again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds a {type(content).__name__} instead of an object. Build the model again.")
    return content
