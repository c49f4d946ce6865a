"""A snapshot's files and their hashes, and the bound on how many snapshots are kept."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError
from modelbuild.profile import Profile
from modelbuild.request import digest, file_sha256, is_hidden, slug
from modelbuild.space import describe
from modelbuild.workspace import Workspace, read_json, write_json

RECORD = ".snapshot.json"
KEPT = 4
WEIGHTS = (".safetensors", ".onnx", ".onnx_data", ".data")


@dataclass(frozen=True)
class Snapshot:
    """A finished snapshot. `files` maps relative names to {"sha256", "bytes"}.

    `weights` are files of a prebuilt graph, whatever their names.
    """

    folder: Path
    files: dict[str, dict[str, Any]]
    weights: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        return sum(int(entry["bytes"]) for entry in self.files.values())

    @property
    def weights_sha256(self) -> str:
        """One digest over all weight files: the revision of a model that has no commit."""
        return digest(
            {
                name: entry["sha256"]
                for name, entry in self.files.items()
                if name.endswith(WEIGHTS) or name in self.weights
            }
        )


def snapshot_folder(workspace: Workspace, profile: Profile, fingerprint: str) -> Path:
    """Where the profile's snapshot is or will be. Profiles of one source share it, whatever they are called.

    `fingerprint` is source_fingerprint(profile), taken once a request: sources may change while a build runs.
    """
    key = digest(
        {
            "source": profile.source,
            "fingerprint": fingerprint,
            "file": profile.file if profile.route == "prebuilt" else None,
            "remote_code": profile.remote_code,
        }
    )
    return workspace.snapshots / f"{key[:12]}-{slug(describe(profile.source))}"


def read_snapshot(folder: Path) -> Snapshot:
    """The finished snapshot in `folder`; BuildError when there is none."""
    if not (folder / RECORD).is_file():
        raise BuildError(f"There is no snapshot in {folder}: run `python -m modelbuild fetch` with this profile first.")
    record = read_json(folder / RECORD)
    return Snapshot(folder, record["files"], tuple(record.get("weights", ())))


def damaged_files(snapshot: Snapshot) -> list[str]:
    """Names of the files that are not as they were fetched."""
    return [
        name
        for name, entry in snapshot.files.items()
        if not (path := snapshot.folder / name).is_file()
        or path.stat().st_size != entry["bytes"]
        or file_sha256(path) != entry["sha256"]
    ]


def file_digests(path: Path) -> tuple[str, str]:
    """(sha256, git's name for the content) of a file."""
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            sha256.update(chunk)
            blob.update(chunk)
    return sha256.hexdigest(), blob.hexdigest()


def write_record(folder: Path, source: dict[str, str], weights: Sequence[str]) -> Snapshot:
    """Hash what was fetched and write it down beside the files; `weights` as in Snapshot."""
    files = {
        str(path.relative_to(folder)): {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_hidden(path, folder)
    }
    write_json(folder / RECORD, {"source": source, "files": files, "weights": list(weights)})
    return Snapshot(folder, files, tuple(weights))


def drop_old_snapshots(workspace: Workspace, keep: Path) -> None:
    """Keep the most recently used snapshots only, and no download that was given up: all can be fetched again."""
    for partial in workspace.snapshots.glob(".partial-*"):
        shutil.rmtree(partial)
    finished = [folder for folder in workspace.snapshots.iterdir() if (folder / RECORD).is_file()]
    finished.sort(key=lambda folder: (folder == keep, (folder / RECORD).stat().st_mtime), reverse=True)
    for folder in finished[KEPT:]:
        shutil.rmtree(folder)
