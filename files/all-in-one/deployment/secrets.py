"""Secrets of the box: generated on the VM once, never read by anything but the containers that need them.

Of API keys the containers get hashes: keys.json holds those of the generated keys and of the operator's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from deployment.files import ensure_folder

APP_UID = 10001
POSTGRES_UID = 10002

Key = dict[str, object]


@dataclass(frozen=True)
class Secret:
    """One secret file; `gid` shares it with a container's user, where the mode lets a group read it."""

    name: str
    uid: int
    gid: int
    mode: int


# API keys are for the operator; the app gets their hashes. Postgres reads the database password through its group.
SECRETS = (
    Secret("api_key", 0, 0, 0o600),
    Secret("search_key", 0, 0, 0o600),
    Secret("postgres_password", APP_UID, POSTGRES_UID, 0o640),
)
# Generated keys: the file, and how the app knows its keys. The operator's own tools are not held up.
GENERATED: tuple[tuple[str, Key], ...] = (
    ("api_key", {"name": "operator", "scopes": ["admin"], "rate_limit": 0}),
    ("search_key", {"name": "page", "scopes": ["search"]}),
)


def ensure(directory: Path) -> list[str]:
    """Create the secrets missing in `directory`; return their names.

    A file appears complete or not at all: a run killed half-way leaves no empty password behind.
    """
    # Containers pass through to their own file, nobody lists.
    ensure_folder(directory, 0, 0, 0o711)
    created = []
    for secret in SECRETS:
        path = directory / secret.name
        if not path.exists():
            _write(path, secrets.token_urlsafe(32), secret)
            created.append(secret.name)
    return created


def write_keys(state: Path, given: list[Key]) -> bool:
    """Write STATE/keys/keys.json, which the app reads: the generated keys, and those `given`, each a name, scopes, the
    sha256 and perhaps a rate_limit. Return whether it has changed.

    A line of a generated key's file is a key, so that an old and a new one are good for a while.
    """
    entries: list[Key] = []
    for file, key in GENERATED:
        lines = (state / "secrets" / file).read_text(encoding="utf-8").split()
        for number, line in enumerate(lines, 1):
            digest = hashlib.sha256(line.encode("utf-8")).hexdigest()
            name = f"{key['name']}-{number}" if number > 1 else key["name"]
            entries.append(key | {"name": name, "sha256": digest})
    text = json.dumps(entries + given, indent=1) + "\n"
    folder = state / "keys"
    ensure_folder(folder, 0, APP_UID, 0o750)
    path = folder / "keys.json"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    # The folder is what the app mounts: a new file by this name is seen there.
    _write(path, text, Secret(path.name, 0, APP_UID, 0o640))
    return True


def _write(path: Path, text: str, secret: Secret) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.chown(partial, secret.uid, secret.gid)
    partial.chmod(secret.mode)
    partial.rename(path)
