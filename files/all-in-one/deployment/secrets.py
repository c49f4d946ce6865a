"""Secrets of the box: generated on the VM once, never read by anything but the containers that need them."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

APP_UID = 10001


@dataclass(frozen=True)
class Secret:
    """One secret file; `gid` shares it with a second container's user, None keeps it to its owner."""

    name: str
    uid: int
    gid: int
    mode: int


# The API key is the app's alone. Postgres (uid 10002) reads the database password through its group.
SECRETS = (Secret("api_key", APP_UID, APP_UID, 0o600), Secret("postgres_password", APP_UID, 10002, 0o640))


def ensure(directory: Path) -> list[str]:
    """Create the secrets missing in `directory`; return their names.

    A file appears complete or not at all: a run killed half-way leaves no empty password behind.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # Containers pass through to their own file, nobody lists; whatever the umask is.
    directory.chmod(0o711)
    created = []
    for secret in SECRETS:
        path = directory / secret.name
        if path.exists():
            continue
        partial = directory / f".{secret.name}.partial"
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(descriptor)
        os.chown(partial, secret.uid, secret.gid)
        partial.chmod(secret.mode)
        partial.rename(path)
        created.append(secret.name)
    return created
