"""release: what was proven, with a manifest that says all about it. `publish` then gives it its name."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from modelbuild.candidate import serving_part
from modelbuild.graph import place_graph
from modelbuild.progress import say
from modelbuild.request import Request, file_sha256
from modelbuild.snapshot import Snapshot, read_snapshot, snapshot_folder
from modelbuild.space import embedding_space
from modelbuild.workspace import Workspace, finished, place, read_json, stage, write_json

STAGE_FOLDERS = ("float", "fused", "quantised", "proof")
COST = ("seconds", "peak_mb")
TOOLS = ("onnxruntime", "tokenizers", "numpy", "onnx", "optimum-onnx", "transformers", "sentence-transformers", "torch")


def release(workspace: Workspace, request: Request) -> dict[str, Any]:
    """Write STAGING/release/: the model's files and manifest.json."""
    staging = workspace.staging(request.id)
    proof = finished(staging / "proof", "prove")
    snapshot = read_snapshot(snapshot_folder(workspace, request.profile, request.fingerprint))
    gate = read_json(proof / "gate.json")

    def work(folder: Path) -> dict[str, Any]:
        place_graph(proof / gate["file"], folder)
        for name in ("tokenizer.json", "config.json", "gate.json"):
            place(proof / name, folder / name)
        if (proof / "float").is_dir():
            (folder / "float").mkdir()
            for path in (proof / "float").iterdir():
                place(path, folder / "float" / path.name)
        write_json(folder / "manifest.json", manifest(request, snapshot, staging, folder))
        say("release", f"{request.id}: {gate['recipe']}")
        return {"recipe": gate["recipe"]}

    return stage(staging / "release", work)


def manifest(request: Request, snapshot: Snapshot, staging: Path, folder: Path) -> dict[str, Any]:
    """The manifest of the files in `folder`; `staging` has the finished stages' figures."""
    gate = read_json(folder / "gate.json")
    content = {
        **serving_part(request.profile, request.id, gate["file"], gate["output"]),
        "recipe": {
            "name": gate["recipe"],
            "weights": gate["weights"],
            "outliers": gate["outliers"],
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
        "files": {
            str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
        },
        "build": {name: _stage_cost(staging / name) for name in STAGE_FOLDERS if (staging / name).is_dir()},
        "golden": read_json(staging / "proof" / "golden.json")["golden"],
    }
    if request.profile.kind == "embedding":
        content["space"] = embedding_space(request.profile, snapshot.weights_sha256)
    return content


def _stage_figures(folder: Path) -> dict[str, Any]:
    unwanted = ("output", *COST)
    return {key: value for key, value in read_json(folder / "done.json").items() if key not in unwanted}


def _stage_cost(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in read_json(folder / "done.json").items() if key in COST}


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
