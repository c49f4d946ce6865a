"""The folders that deployments and data lie in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from deployment.secrets import POSTGRES_UID


def ensure(root: Path, state: Path) -> list[str]:
    """Make ROOT/releases, STATE and STATE/postgres, with their owners and modes; return those that were not so."""
    wanted = (
        (root / "releases", 0, 0o755),
        (state, 0, 0o755),
        # The database's container runs as this user, and Postgres starts in no folder that others may read.
        (state / "postgres", POSTGRES_UID, 0o700),
    )
    return [str(folder) for folder, owner, mode in wanted if _ensure(folder, owner, mode)]


def _ensure(folder: Path, owner: int, mode: int) -> bool:
    """Whether the folder had to be made, given to its owner or opened and closed to others."""
    made = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    found = folder.stat()
    if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (owner, owner, mode):
        return made
    os.chown(folder, owner, owner)
    folder.chmod(mode)
    return True
