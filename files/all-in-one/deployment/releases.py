"""Immutable deployments below ROOT/releases, the link to the current one, and the mark of the last verified one.

A deployment is the payload with its `.env` and `docker-compose.yml`; its name is the digest of all three. The
mark in STATE/verified decides whether there is anything to do: a play killed at any moment leaves it on the old
digest, and the next run finishes the work, whatever the run's own "changed" says.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from deployment.files import link_atomically, write_atomically
from host.audit import audit

WANTED = (".env", "docker-compose.yml")
PARTIAL = ".partial"
# The lines of .env that say which embedding is wanted; what runs computes with the one that the database names.
EMBEDDING = (b"EMBED_MODEL=", b"EMBED_RELEASE=")


class DeploymentError(Exception):
    """What cannot be deployed, and what to do about it."""


def identify(payload: Path, wanted: Mapping[str, str]) -> str:
    """Digest of a deployment: the payload's name, which is its digest, and the texts of its two files."""
    if sorted(wanted) != sorted(WANTED):
        raise DeploymentError(
            f"The files given are {', '.join(sorted(wanted)) or 'none'}; expected {', '.join(WANTED)}."
        )
    texts = json.dumps([wanted[name] for name in WANTED])
    return hashlib.sha256(f"{payload.name} {texts}".encode()).hexdigest()[:12]


def assemble(root: Path, payload: Path, wanted: Mapping[str, str]) -> tuple[str, bool]:
    """Make ROOT/releases/DIGEST from the payload and the texts by file name; return the digest and whether it is new.

    The folder appears complete or not at all, by a rename on one file system. Call it under the lock.
    """
    name = identify(payload, wanted)
    release = root / "releases" / name
    if release.exists():
        return name, False
    partial = root / "releases" / f".{name}{PARTIAL}"
    if partial.exists():
        shutil.rmtree(partial)
    shutil.copytree(payload, partial)
    for file in WANTED:
        (partial / file).touch(0o600)
        (partial / file).write_text(wanted[file], encoding="utf-8")
    # After a power cut, too, a release that has its name has its content.
    os.sync()
    partial.rename(release)
    return name, True


def current(root: Path) -> str | None:
    """Digest of the deployment that `current` links to."""
    link = root / "current"
    return Path(os.readlink(link)).name if link.is_symlink() else None


def verified(state: Path) -> str | None:
    """Digest of the deployment that passed verification last."""
    mark = state / "verified"
    return mark.read_text().strip() if mark.exists() else None


def accept(root: Path, state: Path, name: str) -> bool:
    """Make `name` the current deployment and mark it verified, with an audit line; return whether it was not."""
    if not (root / "releases" / name).is_dir():
        raise DeploymentError(f"{root / 'releases' / name} is not a deployment: run the playbook that makes it")
    changed = link_atomically(root / "current", f"releases/{name}")
    if verified(state) != name:
        write_atomically(state / "verified", name + "\n")
        changed = True
    if changed:
        # Pruning goes by this time: what served last goes last.
        os.utime(root / "releases" / name)
        audit(state, {"event": "deployed", "deployment": name})
    return changed


def begin(state: Path, name: str) -> bool:
    """Note that the running containers are about to become `name`: until it is accepted, nothing is verified."""
    if verified(state) == name:
        return False
    (state / "verified").unlink(missing_ok=True)
    audit(state, {"event": "deploying", "deployment": name})
    return True


def alike(one: Path, other: Path) -> bool:
    """Whether two deployments differ in nothing but the embedding that is wanted."""
    return _content(one) == _content(other)


def prune(folder: Path, keep: int, protected: Collection[str]) -> list[str]:
    """Remove all but the newest `keep` folders of `folder`, never the protected ones; return what went.

    Also removes what killed runs left half-made, without counting it. A folder loses its name first: one that still
    has it is complete.
    """
    found = [path for path in folder.iterdir() if path.is_dir()]
    complete = sorted((path for path in found if path.suffix != PARTIAL), key=lambda path: path.stat().st_mtime)
    removable = [path for path in complete[: max(0, len(complete) - keep)] if path.name not in protected]
    for path in removable:
        path.rename(folder / f".{path.name}{PARTIAL}")
    for path in folder.iterdir():
        if path.suffix == PARTIAL:
            shutil.rmtree(path)
    return [path.name for path in removable]


def _content(folder: Path) -> dict[str, bytes]:
    """Bytes of a deployment's files by path, without the lines that say which embedding is wanted."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    content = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    lines = content[".env"].splitlines(keepends=True)
    content[".env"] = b"".join(line for line in lines if not line.startswith(EMBEDDING))
    return content
