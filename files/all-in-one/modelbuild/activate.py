"""activate and rollback: which release of a kind serves. Links change atomically, with a line in the audit log.

Beside each link is another one, NAME.previous: what served before, for rollback and for a server that finds the active
release damaged. Links are relative: they hold wherever the folder is mounted.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from host.audit import audit
from modelbuild.errors import BuildError
from modelbuild.progress import say
from modelbuild.request import file_sha256
from modelbuild.workspace import Workspace, read_json


def activate(
    workspace: Workspace, kind: str, release_id: str, still_held: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """{"changed", "id", "previous"}. BuildError unless the release is whole and of that kind.

    `still_held` is called right before the links change: it raises if the lock was lost meanwhile.
    """
    check_release(workspace.release(release_id), kind)
    link = workspace.link(kind)
    if link.exists() and not link.is_symlink():
        raise BuildError(f"{link} is a folder where a link to a release belongs. Move it away, then activate again.")
    active = workspace.linked(kind)
    if active == release_id:
        return {"changed": False, "id": release_id, "previous": workspace.previous(kind)}
    still_held()
    if active:
        _point(workspace.previous_link(kind), active)
    _point(link, release_id)
    audit(workspace.state_dir, {"event": "activate", "kind": kind, "release": release_id, "previous": active})
    say("activate", f"{link} -> {release_id}")
    return {"changed": True, "id": release_id, "previous": active}


def rollback(workspace: Workspace, kind: str, still_held: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Swap the active release and the previous one. BuildError if there is none, or it is damaged."""
    previous = workspace.previous(kind)
    if not previous:
        raise BuildError(
            f"There is no previous {kind} to go back to: {workspace.previous_link(kind)} does not exist. Name the "
            f"model you want in models_{kind} and run playbooks/models.yml."
        )
    result = activate(workspace, kind, previous, still_held)
    audit(workspace.state_dir, {"event": "rollback", "kind": kind, "release": previous, "from": result["previous"]})
    return result


def check_release(folder: Path, kind: str) -> None:
    """BuildError unless the release is whole, by its own hashes, and of the wanted kind."""
    if not (folder / "manifest.json").is_file():
        there = ", ".join(sorted(path.parent.name for path in folder.parent.glob("*/manifest.json"))) or "none"
        raise BuildError(f"{folder} is no release. Those there: {there}.")
    manifest = read_json(folder / "manifest.json")
    if manifest["kind"] != kind:
        raise BuildError(f"{folder.name} is a release of kind {manifest['kind']}, expected {kind}.")
    if bad := damaged_file(folder):
        raise BuildError(
            f"{folder / bad} is not what the release's manifest states: the release is damaged. Run "
            "playbooks/models.yml with this model: it builds the release again."
        )


def damaged_file(folder: Path) -> str | None:
    """Name of the first file that is not what the manifest states; None when the release is whole."""
    try:
        files: dict[str, str] = read_json(folder / "manifest.json")["files"]
    except (OSError, ValueError, KeyError):
        return "manifest.json"
    for name, sha256 in files.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != sha256:
            return name
    return None


def _point(link: Path, release_id: str) -> None:
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(f"releases/{release_id}")
    os.replace(partial, link)
