"""activate: point the kind's link at a release, atomically, with a line in the audit log."""

import datetime
import json
import os
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError
from modelbuild.progress import say
from modelbuild.request import file_sha256
from modelbuild.workspace import Workspace, make_folder, read_json


def activate(workspace: Workspace, kind: str, release_id: str) -> dict[str, Any]:
    """{"changed", "id", "previous"}. The link is relative: it holds wherever the folder is mounted."""
    target = workspace.release(release_id)
    link = workspace.link(kind)
    check_release(target, kind)
    if link.exists() and not link.is_symlink():
        raise BuildError(f"{link} is a folder where a link to a release belongs. Move it away, then activate again.")
    previous = Path(os.readlink(link)).name if link.is_symlink() else None
    if workspace.is_active(kind, release_id):
        return {"changed": False, "id": release_id, "previous": previous}
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(f"releases/{release_id}")
    partial.replace(link)
    audit(workspace.state_dir, {"event": "activate", "kind": kind, "release": release_id, "previous": previous})
    say("activate", f"{link} -> {release_id}")
    return {"changed": True, "id": release_id, "previous": previous}


def check_release(folder: Path, kind: str) -> None:
    """BuildError unless the release is whole, by its own hashes, and of the wanted kind."""
    if not (folder / "manifest.json").is_file():
        there = ", ".join(_releases(folder.parent)) or "none"
        raise BuildError(f"{folder} is no release. Those there: {there}.")
    manifest = read_json(folder / "manifest.json")
    if manifest["kind"] != kind:
        raise BuildError(f"{folder.name} is a release of kind {manifest['kind']}, expected {kind}.")
    for name, sha256 in manifest["files"].items():
        path = folder / name
        found = file_sha256(path) if path.is_file() else "nothing"
        if found != sha256:
            raise BuildError(
                f"{path}: its manifest states sha256 {sha256[:12]}…, found {found[:12]}. The release is damaged: "
                "remove its folder and build it again."
            )


def audit(state_dir: Path, entry: dict[str, Any]) -> None:
    """Append one JSON line with time and user to the audit log."""
    make_folder(state_dir)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
    line = json.dumps({"time": now, "user": user, **entry}, ensure_ascii=False) + "\n"
    # One write of one short line: concurrent writers do not mix with O_APPEND.
    descriptor = os.open(state_dir / "audit.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        os.write(descriptor, line.encode("utf-8"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _releases(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/manifest.json"))
