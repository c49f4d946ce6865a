"""fetch: a pinned snapshot of a model's files, from the hub, a folder or a demo builder. Never half a model."""

import importlib
import shutil
import time
from pathlib import Path
from typing import Any

from modelbuild import hub
from modelbuild.errors import BuildError
from modelbuild.graph import files_of
from modelbuild.profile import Profile, parse_profile
from modelbuild.progress import say
from modelbuild.request import file_sha256, source_fingerprint
from modelbuild.snapshot import (
    RECORD,
    Snapshot,
    damaged_files,
    drop_old_snapshots,
    read_snapshot,
    snapshot_folder,
    write_record,
)
from modelbuild.space import describe
from modelbuild.workspace import Workspace, make_folder, read_json, sync_tree

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
REFUSED_SUFFIXES = (*PICKLED, ".h5", ".msgpack")


def fetch(workspace: Workspace, profile: Profile, fingerprint: str | None = None) -> dict[str, Any]:
    """Fetch unless the snapshot is there: {"changed", "snapshot", "bytes", "seconds"}."""
    start = time.monotonic()
    folder = snapshot_folder(workspace, profile, fingerprint or source_fingerprint(profile))
    snapshot = _there(folder)
    changed = snapshot is None
    if snapshot is None:
        snapshot = _fetch(workspace, profile, folder)
    return {
        "changed": changed,
        "snapshot": str(folder),
        "bytes": snapshot.total_bytes,
        "seconds": round(time.monotonic() - start, 1),
    }


def _there(folder: Path) -> Snapshot | None:
    """The snapshot, if it is there and still as it was fetched."""
    if not (folder / RECORD).is_file():
        return None
    snapshot = read_snapshot(folder)
    if damaged := damaged_files(snapshot):
        say("fetch", f"{folder}: {', '.join(damaged)} changed since it was fetched, so it is fetched again")
        return None
    (folder / RECORD).touch()  # used last, so dropped last
    return snapshot


def _fetch(workspace: Workspace, profile: Profile, folder: Path) -> Snapshot:
    partial = folder.with_name(f".partial-{folder.name}")
    make_folder(partial)
    say("fetch", f"{profile.name} from {describe(profile.source)}")
    {"hub": _from_hub, "folder": _from_folder, "demo": _from_demo}[profile.source["type"]](workspace, profile, partial)
    _check_content(partial, profile)
    tensors = files_of(partial / profile.file) if profile.route == "prebuilt" else []
    snapshot = write_record(partial, profile.source, [str(path.relative_to(partial)) for path in tensors])
    sync_tree(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    drop_old_snapshots(workspace, keep=folder)
    say("fetch", f"{snapshot.total_bytes / 1e6:.0f} MB in {folder}")
    return Snapshot(folder, snapshot.files, snapshot.weights)


def _from_hub(workspace: Workspace, profile: Profile, partial: Path) -> None:
    hub.download(profile, partial)


def _from_folder(workspace: Workspace, profile: Profile, partial: Path) -> None:
    source = Path(profile.source["path"])
    for path in source.rglob("*"):
        if path.is_symlink() and source.resolve() not in path.resolve().parents:
            raise BuildError(f"{path} leads to {path.resolve()}, out of the model's folder. Put the file itself there.")
    pickled = sorted(path.name for path in source.rglob("*") if path.suffix in PICKLED)
    if pickled and profile.route != "prebuilt" and not list(source.rglob("*.safetensors")):
        raise BuildError(hub.refuse_pickle(str(source), pickled[0]))
    shutil.rmtree(partial)
    shutil.copytree(source, partial, ignore=lambda _, names: [n for n in names if _is_unwanted(n)])
    if profile.route == "prebuilt" and (source / profile.file).is_file():
        # Whatever they are called: tensors of a graph are numbers, not code.
        for path in files_of(source / profile.file):
            target = partial / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _is_unwanted(name: str) -> bool:
    return name.startswith(".") or name.endswith(REFUSED_SUFFIXES)


def _from_demo(workspace: Workspace, profile: Profile, partial: Path) -> None:
    """Builders write from scratch; the reranker is trained on top of the demo's embedding, fetched first."""
    shutil.rmtree(partial)
    partial.mkdir()
    builder = importlib.import_module(f"modelbuild.demo.{profile.source['builder']}")
    inputs = [partial]
    if profile.source["builder"] == "reranker":
        embedding = parse_profile(DEMO_EMBEDDING)
        inputs.append(Path(fetch(workspace, embedding)["snapshot"]))
    try:
        builder.build(*inputs)
    except (RuntimeError, ValueError, OSError) as error:
        raise BuildError(f"{profile.name}: the demo builder failed: {error}") from error


def _check_content(folder: Path, profile: Profile) -> None:
    """What every later stage relies on. Pickled weights are refused: loading them would run their code."""
    if not (folder / "config.json").is_file():
        raise BuildError(f"{describe(profile.source)}: has no config.json, so it is not a Hugging Face model.")
    if not (folder / "tokenizer.json").is_file():
        raise BuildError(
            f"{describe(profile.source)}: has no tokenizer.json (a fast tokenizer). Save one with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...) and use the folder as the source."
        )
    if profile.route == "prebuilt":
        if not (folder / profile.file).is_file():
            raise BuildError(f"{describe(profile.source)}: has no {profile.file}; correct `file` in the profile.")
    elif not list(folder.rglob("*.safetensors")):
        raise BuildError(
            f"{describe(profile.source)}: has no .safetensors weights, and other formats run code when they load. "
            "Convert the weights, or choose a revision that has them."
        )
    for index in folder.rglob("*.safetensors.index.json"):
        missing = sorted(set(read_json(index)["weight_map"].values()) - {path.name for path in index.parent.iterdir()})
        if missing:
            raise BuildError(f"{describe(profile.source)}: {missing[0]}, which {index.name} names, is missing.")
    _check_pins(folder, profile)


def _check_pins(folder: Path, profile: Profile) -> None:
    """The hashes that the profile itself states: not even the hub is believed."""
    for name, expected in profile.files.items():
        if profile.route == "prebuilt" and not (folder / name).exists():
            continue  # a pin knows what lies beside the graph, not yet which of it the graph names
        found = file_sha256(folder / name) if (folder / name).is_file() else "no such file"
        if found != expected:
            (folder / name).unlink(missing_ok=True)
            raise BuildError(
                f"{describe(profile.source)}: {name} has the hash {found[:12]}…, expected {expected[:12]}… as the "
                "profile's `files` says. It is removed: run this again; if it repeats, it is not what was pinned."
            )


DEMO_EMBEDDING: dict[str, Any] = {
    "name": "demo-multilingual-e5-small",
    "kind": "embedding",
    "source": {"type": "demo", "builder": "e5"},
    "route": "sentence-transformers",
    "pooling": "mean",
    "normalize": True,
    "prefixes": {"query": "query: ", "passage": "passage: "},
    "default_input_type": "query",
    "max_length": 512,
    "dimension": 384,
    "licence": "MIT",
    "languages": ["multilingual"],
    "size_mb": 470,
}
