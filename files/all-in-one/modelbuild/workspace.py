"""Where builds happen: staging, releases, links and snapshots. Nothing half-made gets a final name."""

import json
import os
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError

LINKS = {"embedding": "emb", "reranker": "rerank"}
DONE = "done.json"


@dataclass(frozen=True)
class Workspace:
    """Folders of one host. Staging and releases share a file system, so that a release appears by one rename."""

    models_dir: Path
    cache_dir: Path
    state_dir: Path

    @property
    def snapshots(self) -> Path:
        return self.cache_dir / "snapshots"

    def release(self, release_id: str) -> Path:
        return self.models_dir / "releases" / release_id

    def staging(self, release_id: str) -> Path:
        return self.models_dir / ".staging" / release_id

    def frozen_profile(self, release_id: str) -> Path:
        """The profile of a build at work, as it was asked for: what its stages read."""
        return self.state_dir / "requests" / f"{release_id}.json"

    def link(self, kind: str) -> Path:
        return self.models_dir / LINKS[kind]

    def previous_link(self, kind: str) -> Path:
        """The link to what was active before."""
        return self.models_dir / f"{LINKS[kind]}.previous"

    def linked(self, kind: str) -> str | None:
        """ID of the active release."""
        return _release_named_by(self.link(kind))

    def previous(self, kind: str) -> str | None:
        """ID of the release that was active before, for rollback."""
        return _release_named_by(self.previous_link(kind))

    def is_released(self, release_id: str) -> bool:
        return (self.release(release_id) / "manifest.json").is_file()


def _release_named_by(link: Path) -> str | None:
    if not link.is_symlink():
        return None
    target = Path(os.readlink(link))
    return target.name if target.parent == Path("releases") else None


def stage(folder: Path, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Run `work(folder)` once: its marker is written when all of it is on disk, and later calls read the marker.

    Returns the work's figures with `changed`, `seconds` and `peak_mb`. What a killed run left has no marker, and goes.
    """
    marker = folder / DONE
    if marker.is_file():
        return {**read_json(marker), "changed": False}
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    start = time.monotonic()
    figures = work(folder)
    figures["seconds"] = round(time.monotonic() - start, 1)
    # Of the whole process so far: a stage run by `build` has a process of its own. Linux gives kilobytes.
    figures["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    sync_tree(folder)
    write_json(marker, figures)
    return {**figures, "changed": True}


def finished(folder: Path, stage_name: str) -> Path:
    """The folder of a stage that has to be done already."""
    if not (folder / DONE).is_file():
        raise BuildError(f"{folder} is not finished: run `python -m modelbuild {stage_name}` with this profile first.")
    return folder


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"{folder} cannot be created: {error.strerror}. Give this user the folder above it."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write by rename, so that a reader sees all of it or nothing."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, ensure_ascii=False, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`: a rename must not outlive the content it names."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def place(source: Path, target: Path) -> None:
    """Put a file elsewhere on the same file system without copying it; across file systems it is copied."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
