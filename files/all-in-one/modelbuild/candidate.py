"""A folder that the serving code reads as a release, at any point of the build."""

from pathlib import Path
from typing import Any

from modelbuild.profile import Profile
from modelbuild.workspace import write_json
from pipeline.manifest import SCHEMA


def candidate_folder(folder: Path, profile: Profile, file: str, output: str) -> Path:
    """Write the manifest that serving needs to read `folder` with the model file `file`; returns the folder."""
    write_json(folder / "manifest.json", serving_part(profile, f"candidate-{profile.name}", file, output))
    return folder


def serving_part(profile: Profile, release_id: str, file: str, output: str) -> dict[str, Any]:
    """The part of a manifest that decides how a model is fed."""
    return {
        "schema": SCHEMA,
        "id": release_id,
        "kind": profile.kind,
        "profile": profile.raw,
        "file": file,
        "output": output,
        "max_length": profile.max_length,
        "dimension": profile.dimension,
    }
