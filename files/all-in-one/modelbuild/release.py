"""release: an immutable folder with a manifest, which appears under its name all at once."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from modelbuild.candidate import serving_part
from modelbuild.fetch import describe
from modelbuild.graph import files_of
from modelbuild.progress import say
from modelbuild.request import Request, file_sha256
from modelbuild.snapshot import Snapshot, read_snapshot, snapshot_folder
from modelbuild.workspace import Workspace, finished, make_folder, place, read_json, sync_tree, write_json

TOOLS = ("onnxruntime", "tokenizers", "numpy", "onnx", "optimum-onnx", "transformers", "sentence-transformers", "torch")


def release(workspace: Workspace, request: Request) -> dict[str, Any]:
    """Turn STAGING/proof/ into RELEASES/ID by one rename, then drop the staging folder."""
    target = workspace.release(request.id)
    if workspace.is_released(request.id):
        return {"changed": False, "release": str(target), **summary(read_json(target / "manifest.json"))}
    staging = workspace.staging(request.id)
    proof = finished(staging / "proof", "prove")
    snapshot = read_snapshot(snapshot_folder(workspace, request.profile, request.fingerprint))
    folder = staging / "release"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    gate = read_json(proof / "gate.json")
    for path in [*files_of(proof / gate["file"]), *(proof / n for n in ("tokenizer.json", "config.json", "gate.json"))]:
        place(path, folder / path.name)
    content = manifest(request, snapshot, staging, folder)
    write_json(folder / "manifest.json", content)
    _publish(folder, target)
    shutil.rmtree(staging, ignore_errors=True)
    say("release", f"{request.id}: {gate['recipe']}")
    return {"changed": True, "release": str(target), **summary(content)}


def summary(content: dict[str, Any]) -> dict[str, Any]:
    """What a recap says about a release."""
    return {
        "id": content["id"],
        "recipe": content["recipe"]["name"],
        "reason": content["recipe"]["reason"],
        "gate": content["gate"],
        "sizes": content["sizes"],
        "speed": content["speed"],
    }


def _publish(folder: Path, target: Path) -> None:
    """World readable and read-only, on disk before it has its name. The folder itself stays its owner's to prune."""
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o755)
    sync_tree(folder)
    make_folder(target.parent)
    # What has the name but no manifest was never published by this code: it is not a release.
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)
    sync_parent(target.parent)


def sync_parent(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def manifest(request: Request, snapshot: Snapshot, staging: Path, folder: Path) -> dict[str, Any]:
    """The manifest of the files in `folder`; `staging` has the finished stages' figures."""
    gate = read_json(folder / "gate.json")
    content = {
        **serving_part(request.profile, request.id, gate["file"], gate["output"]),
        "recipe": {
            "name": gate["recipe"],
            "weights": gate["weights"],
            "excluded": gate["in_float"],
            "table_in_int8": gate["table_in_int8"],
            "reason": gate["reason"],
        },
        "cpu": {"class": request.cpu.name, "flags": list(request.cpu.flags)},
        "versions": {"python": platform.python_version(), **_versions()},
        "fusion": _stage_figures(staging / "fused"),
        "export": _stage_figures(staging / "float"),
        "inputs": _inputs(folder / gate["file"]),
        "pad_id": _pad_id(folder / "tokenizer.json"),
        "gate": {**gate["figures"], "passed": True},
        "sizes": {"float_bytes": gate["float_bytes"], "int8_bytes": gate["int8_bytes"]},
        "speed": gate["speed"],
        "snapshot": {
            "source": request.profile.source,
            "weights_sha256": snapshot.weights_sha256,
            "files": snapshot.files,
        },
        "files": {path.name: file_sha256(path) for path in sorted(folder.iterdir())},
        "golden": read_json(staging / "proof" / "golden.json")["golden"],
    }
    if request.profile.kind == "embedding":
        content["space"] = embedding_space(request, snapshot)
    return content


def embedding_space(request: Request, snapshot: Snapshot) -> dict[str, Any]:
    """What makes vectors comparable: models of one space can share an index."""
    profile = request.profile
    on_hub = profile.source["type"] == "hub"
    return {
        "repository": profile.source["repository"] if on_hub else describe(profile.source),
        "revision": profile.source["revision"] if on_hub else snapshot.weights_sha256,
        "pooling": profile.pooling,
        "normalize": profile.normalize,
        "prefixes": profile.prefixes,
        "dimension": profile.dimension,
        "max_length": profile.max_length,
    }


def _stage_figures(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in read_json(folder / "done.json").items() if key not in ("output", "seconds")}


def _versions() -> dict[str, str]:
    found = {}
    for name in TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _inputs(model_file: Path) -> list[str]:
    import onnx  # noqa: PLC0415

    return [entry.name for entry in onnx.load(str(model_file), load_external_data=False).graph.input]


def _pad_id(tokenizer_file: Path) -> int:
    """The tokenizer's padding ID; 0 where it states none, since nothing is ever padded here."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    candidates = (tokenizer.token_to_id(token) for token in ("<pad>", "[PAD]"))
    return next((int(token) for token in candidates if token is not None), 0)
