"""The folders that deployments and data lie in."""

from __future__ import annotations

from pathlib import Path

from deployment.files import ensure_folder
from deployment.secrets import POSTGRES_UID


def ensure(root: Path, state: Path) -> list[str]:
    """Make ROOT/releases, STATE and STATE/postgres, with their owners and modes; return those that were not so."""
    wanted = (
        (root / "releases", 0, 0o755),
        (state, 0, 0o755),
        # The database's container runs as this user, and Postgres starts in no folder that others may read.
        (state / "postgres", POSTGRES_UID, 0o700),
    )
    return [str(folder) for folder, owner, mode in wanted if ensure_folder(folder, owner, owner, mode)]
