"""prune: releases that nothing names any more, and what builds left lying."""

import shutil
import time
from collections.abc import Iterable
from typing import Any

from host.audit import audit
from modelbuild.profile import KINDS
from modelbuild.workspace import Workspace, read_json


def prune(workspace: Workspace, keep: int, in_use: Iterable[str], recent: float = 0.0) -> dict[str, Any]:
    """Per kind, keep what a link or `in_use` names and the newest up to `keep`: {"changed", "removed", "kept"}.

    What was published within the last `recent` seconds stays too: another run may have built it, to deploy it next.
    Call it under the lock: no build is going on then, and all that lies in staging is left over.
    """
    named = set(in_use) | _published_since(workspace, time.time() - recent)
    for kind in KINDS:
        named |= {name for name in (workspace.linked(kind), workspace.previous(kind)) if name}
    removed: list[str] = []
    kept: list[str] = []
    for releases in _by_kind(workspace).values():
        spare = max(0, keep - sum(name in named for name in releases))
        for name in releases:
            if name in named or spare > 0:
                spare -= name not in named
                kept.append(name)
            else:
                removed.append(name)
    for name in removed:
        # It loses its name first: what has a release's name is whole.
        gone = workspace.models_dir / ".staging" / f"removed.{name}"
        gone.parent.mkdir(exist_ok=True)
        workspace.release(name).rename(gone)
        audit(workspace.state_dir, {"event": "prune", "release": name})
    leftovers = list(workspace.models_dir.glob(".staging/*"))
    for folder in leftovers:
        shutil.rmtree(folder)
    return {"changed": bool(removed), "removed": removed, "kept": kept, "leftovers": len(leftovers) - len(removed)}


def _published_since(workspace: Workspace, when: float) -> set[str]:
    files = workspace.models_dir.glob("releases/*/manifest.json")
    return {file.parent.name for file in files if file.stat().st_mtime > when}


def _by_kind(workspace: Workspace) -> dict[str, list[str]]:
    """{kind: release IDs, newest first}."""
    found: dict[str, list[tuple[float, str]]] = {}
    for file in workspace.models_dir.glob("releases/*/manifest.json"):
        try:
            kind = str(read_json(file)["kind"])
        except (ValueError, KeyError):
            kind = "unreadable"
        found.setdefault(kind, []).append((file.stat().st_mtime, file.parent.name))
    return {kind: [name for _, name in sorted(releases, reverse=True)] for kind, releases in found.items()}
