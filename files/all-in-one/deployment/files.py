"""Digests, atomic writes, and folders with an owner and a mode."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path


def digest(root: Path, parts: Iterable[str]) -> str:
    """First 12 hex digits of the SHA-256 over names, executable bits and content of `parts` below `root`.

    A part is a file or a folder, whose files all count. FileNotFoundError names a part that is not there.
    """
    sha = hashlib.sha256()
    for part in sorted(parts):
        path = root / part
        for file in [path] if path.is_file() else _files_below(path):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            sha.update(f"{file.relative_to(root)} {os.access(file, os.X_OK)} {content}\n".encode())
    return sha.hexdigest()[:12]


def _files_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: the copy of the payload is not complete, run the playbook again")
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` in one step: a reader, or a run after a power cut, sees the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def ensure_folder(folder: Path, uid: int, gid: int, mode: int) -> bool:
    """Let `folder` be there with this owner and mode, whatever the umask is; return whether it was not so."""
    made = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    found = folder.stat()
    if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (uid, gid, mode):
        return made
    os.chown(folder, uid, gid)
    folder.chmod(mode)
    return True


def link_atomically(link: Path, target: str) -> bool:
    """Let `link` point to `target`, in one step; return whether it did not before."""
    if link.is_symlink() and os.readlink(link) == target:
        return False
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)
    return True
