"""The original scripts' work on plain folders, without profiles, releases and Ansible."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError
from modelbuild.profile import Profile, parse_profile
from modelbuild.progress import say
from modelbuild.workspace import Workspace, read_json

DEMO_NAMES = {"demo-multilingual-e5-small": "e5", "demo-reranker": "reranker"}
# Repositories whose code the exporter refuses, and which carry an ONNX file of their own.
PREBUILT = ("jinaai/jina-reranker-v2-base-multilingual",)
NON_COMMERCIAL = ("jinaai/",)
DEFAULT_LENGTH = 512
COMPANIONS = (
    "tokenizer.json",
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling",
)


def main() -> int:
    """`python -m modelbuild.standalone embedding|reranker MODEL OUT`: export MODEL into the plain folder OUT."""
    parser = argparse.ArgumentParser(prog="python -m modelbuild.standalone")
    parser.add_argument("kind", choices=("embedding", "reranker"))
    parser.add_argument("model", help="hub name (owner/name or owner/name@revision), folder, or demo model name")
    parser.add_argument("out", type=Path)
    parser.add_argument("--cache-dir", type=Path, default=Path.home() / ".cache" / "onebox")
    options = parser.parse_args()
    try:
        export_plain(options.kind, options.model, options.out, options.cache_dir)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def refuse_release(path: Path) -> None:
    """BuildError where `path`, followed through links, lies below a folder of releases: those never change."""
    real = Path(os.path.realpath(path))
    if "releases" in real.parts:
        raise BuildError(
            f"{path} is {real}, below releases/, where proven models are kept that nobody changes. Write to another "
            "folder, or build a new release with `python -m modelbuild build --profile FILE --activate`."
        )


def export_plain(kind: str, model: str, out: Path, cache_dir: Path) -> None:
    """Export `model` and replace the folder `out` with the result: model.onnx, tokenizer.json, config.json, …"""
    refuse_release(out)
    from modelbuild.export import export_snapshot  # noqa: PLC0415
    from modelbuild.fetch import fetch  # noqa: PLC0415
    from modelbuild.optimise import optimise_folder  # noqa: PLC0415

    workspace = Workspace(out.parent, cache_dir, cache_dir)
    profile = describe_model(kind, model)
    snapshot = Path(fetch(workspace, profile)["snapshot"])
    profile = complete(profile, snapshot)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        exported, fused = Path(scratch) / "float", Path(scratch) / out.name
        for folder in (exported, fused):
            folder.mkdir()
        figures = export_snapshot(snapshot, profile, exported)
        optimise_folder(exported, profile, fused, figures["output"], one_file=True)
        (fused / "manifest.json").unlink(missing_ok=True)
        _copy_companions(snapshot, fused)
        fused.chmod(0o755)
        _replace_folder(fused, out)
    say("export", f"wrote {out}")


def describe_model(kind: str, model: str) -> Profile:
    """A profile for a model known by name only; length and dimension are filled in once its files are here."""
    source: dict[str, str]
    if model in DEMO_NAMES:
        source = {"type": "demo", "builder": DEMO_NAMES[model]}
    elif Path(model).is_dir():
        source = {"type": "folder", "path": str(Path(model).absolute())}
    else:
        source = _hub_source(model)
    repository = source.get("repository", "")
    if repository.startswith(NON_COMMERCIAL):
        say("export", f"{repository} is licensed for non-commercial use only (CC-BY-NC-4.0)")
    route = "sentence-transformers" if kind == "embedding" else "transformers"
    content: dict[str, Any] = {
        "name": repository or Path(model).name,
        "kind": kind,
        "source": source,
        "route": "prebuilt" if repository in PREBUILT else route,
        "max_length": DEFAULT_LENGTH,
        "licence": "not checked",
        "languages": ["multilingual"],
    }
    if kind == "embedding":
        content["dimension"] = 1
    return parse_profile(content, model)


def complete(profile: Profile, snapshot: Path) -> Profile:
    """The profile with the length, dimension, pooling and languages that the snapshot's files state."""
    from pipeline.manifest import stated_max_length  # noqa: PLC0415

    length = stated_max_length(snapshot)
    raw = {**profile.raw, "max_length": length}
    if profile.kind == "reranker":
        return replace(profile, max_length=length, raw=raw)
    dimension = _dimension(snapshot)
    return replace(profile, max_length=length, dimension=dimension, raw={**raw, "dimension": dimension})


def _dimension(snapshot: Path) -> int:
    """What the last module that changes the width states: a Dense layer's output, or the hidden size."""
    modules = snapshot / "modules.json"
    if modules.is_file():
        for module in reversed(json.loads(modules.read_text(encoding="utf-8"))):
            config = snapshot / module["path"] / "config.json"
            if config.is_file() and "out_features" in (content := read_json(config)):
                return int(content["out_features"])
    config_json = read_json(snapshot / "config.json")
    return int(config_json.get("hidden_size") or config_json["dim"])


def _hub_source(model: str) -> dict[str, str]:
    from modelbuild.hub import resolve_revision  # noqa: PLC0415
    from modelbuild.profile import COMMIT, REPOSITORY  # noqa: PLC0415

    repository, _, revision = model.partition("@")
    if not REPOSITORY.fullmatch(repository):
        raise BuildError(
            f"{model!r} is no folder here, no demo model ({', '.join(DEMO_NAMES)}) and no hub name like owner/name."
        )
    if not COMMIT.fullmatch(revision):
        revision = resolve_revision(repository, revision or None)
        say("export", f"{model} is at commit {revision} now; name {repository}@{revision} to export the same again")
    return {"type": "hub", "repository": repository, "revision": revision}


def _copy_companions(snapshot: Path, folder: Path) -> None:
    for name in COMPANIONS:
        source, target = snapshot / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.is_file():
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)


def _replace_folder(new: Path, target: Path) -> None:
    """Give `new` the name `target`; the moment without that name is two renames long."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
