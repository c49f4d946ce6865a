"""publish: what a build prepared becomes a release, by one rename, after it was checked.

The stages before it run as a user who is not trusted, on files that came from others: nothing is taken over but regular
files with the hashes that the prepared manifest states, copied where that user owns them.
"""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError
from modelbuild.progress import say
from modelbuild.request import file_sha256
from modelbuild.workspace import Workspace, make_folder, read_json, sync_tree

READABLE, LISTABLE = 0o444, 0o755


def publish(workspace: Workspace, release_id: str, still_held: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """STAGING/release/ to RELEASES/ID, read-only and owned by this process's user; a damaged release gives way.

    `still_held` is called right before the release gets its name: it raises if the lock was lost meanwhile.
    """
    prepared, target = workspace.staging(release_id) / "release", workspace.release(release_id)
    partial = workspace.models_dir / ".staging" / f"publish.{release_id}"
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    manifest = _take(prepared, partial)
    if manifest["id"] != release_id:
        raise BuildError(f"{prepared}/manifest.json: id {manifest['id']!r}, expected {release_id!r}. Build it again.")
    for name, sha256 in manifest["files"].items():
        if file_sha256(partial / name) != sha256:
            raise BuildError(f"{prepared / name} is not what its manifest states. Run the build again.")
    sync_tree(partial)
    make_folder(target.parent)
    still_held()
    if target.exists():
        aside = workspace.models_dir / ".staging" / f"damaged.{release_id}"
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
    partial.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(workspace.models_dir / ".staging" / f"damaged.{release_id}", ignore_errors=True)
    shutil.rmtree(workspace.staging(release_id), ignore_errors=True)
    say("publish", str(target))
    return manifest


def _take(source: Path, target: Path) -> dict[str, Any]:
    """Copy the manifest and the files it names, nothing else; the copies belong to this process's user."""
    _copy(source, "manifest.json", target)
    manifest = read_json(target / "manifest.json")
    for name in manifest["files"]:
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or len(parts) > 2:
            raise BuildError(f"{source}/manifest.json names {name!r}; expected files below the release's folder.")
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).parent.chmod(LISTABLE)
        _copy(source, name, target)
    target.chmod(LISTABLE)
    return manifest


def _copy(source: Path, name: str, target: Path) -> None:
    """Copy one regular file, or link it where this user owns it already: a path that leads elsewhere is refused."""
    path = source / name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise BuildError(f"{path} cannot be taken over ({error.strerror}). Run the build again.") from error
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or path.parent.resolve() != (source.resolve() / name).parent:
            raise BuildError(f"{path} is no regular file of the build. Run the build again.")
        if found.st_uid == os.geteuid():
            os.link(path, target / name)
        else:
            with (target / name).open("xb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
    (target / name).chmod(READABLE)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
