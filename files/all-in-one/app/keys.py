"""Who may do what: keys with scopes, of which the service knows hashes only.

The file of keys is JSON: [{"name", "scopes", "sha256"}], perhaps each with a "rate_limit". It is read again when it
changes, so that a key is added or revoked without a restart.
"""

import asyncio
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.log import log

SCOPES = ("search", "ingest", "admin")
LOOK = 1.0  # seconds between two looks at the file
_FIELDS = frozenset({"name", "scopes", "sha256"})
_SHA256 = re.compile(r"[0-9a-f]{64}")


class KeysError(RuntimeError):
    """A file of keys that cannot be used, in one sentence that quotes nothing of it."""


@dataclass(frozen=True)
class Key:
    """`name` is for people: logs say it. The scope admin includes the others.

    `rate_limit` is requests a minute, 0 for no limit, None for what the box allows each key.
    """

    name: str
    scopes: frozenset[str]
    sha256: str
    rate_limit: int | None = None

    def may(self, scope: str | None) -> bool:
        """None: what any key may."""
        return scope is None or scope in self.scopes or "admin" in self.scopes


# Whoever asks where no key is needed.
EVERYBODY = Key("", frozenset({"admin"}), "", rate_limit=0)


def key_of(name: str, scopes: Iterable[str], plain: str) -> Key:
    """The key whose plaintext this is. A plain hash does, since keys are long and random: nobody guesses one."""
    return Key(name, frozenset(scopes), hashlib.sha256(plain.encode("utf-8")).hexdigest())


def read(file: Path) -> tuple[Key, ...]:
    """KeysError when the file cannot be used."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeysError(f"{file} cannot be read ({error.strerror})") from None
    except ValueError:
        raise KeysError(f"{file} is not JSON") from None
    if not isinstance(entries, list) or not entries:
        raise KeysError(f"{file} holds no list of keys")
    return tuple(_key(entry, f"{file}, key {number}") for number, entry in enumerate(entries, 1))


def _key(entry: Any, where: str) -> Key:
    if not isinstance(entry, dict) or set(entry) - {"rate_limit"} != _FIELDS:
        raise KeysError(f"{where} has other fields than name, scopes, sha256 and rate_limit")
    name, scopes, sha256 = entry["name"], entry["scopes"], entry["sha256"]
    if not isinstance(name, str) or not name:
        raise KeysError(f"{where} has no name")
    if not isinstance(scopes, list) or not scopes or any(scope not in SCOPES for scope in scopes):
        raise KeysError(f"{where} ({name}) has other scopes than some of {', '.join(SCOPES)}")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise KeysError(f"{where} ({name}) has a sha256 that is not 64 hex digits")
    rate_limit = entry.get("rate_limit")
    if rate_limit is not None and (type(rate_limit) is not int or rate_limit < 0):
        raise KeysError(f"{where} ({name}) has a rate_limit that is no whole number from 0")
    return Key(name, frozenset(scopes), sha256, rate_limit)


class Keys:
    """The keys that are good now."""

    def __init__(self, keys: tuple[Key, ...], file: Path | None = None) -> None:
        """Without `keys` none is needed. `file` is where changes of them appear."""
        self.required = bool(keys)
        # The service's own, for its self-test: it begins and ends with this process, and is in no file of keys.
        self.own = secrets.token_urlsafe(32)
        self.problem: str | None = None
        self._own = Key("selftest", frozenset({"admin"}), key_of("", (), self.own).sha256, rate_limit=0)
        self._keys = keys
        self._file = file
        self._seen = _state(file)

    def find(self, authorization: str) -> Key | None:
        """Whose key an Authorization header holds. Compared in constant time, with all of them."""
        if not self.required:
            return EVERYBODY
        scheme, _, given = authorization.partition(" ")
        offered = given.strip() if scheme.lower() == "bearer" else ""
        digest = hashlib.sha256(offered.encode("utf-8")).hexdigest()
        matches = [key for key in (*self._keys, self._own) if hmac.compare_digest(digest, key.sha256)]
        return matches[0] if matches else None

    def hand_over(self, file: Path) -> None:
        """Leave the own key where `python -m app.selftest` in the same container finds it."""
        file.unlink(missing_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as output:
            output.write(self.own)

    def look(self) -> None:
        """Take the file's keys if it has changed. One that cannot be used changes nothing; `problem` says so."""
        state = _state(self._file)
        if self._file is None or state == self._seen:
            return
        self._seen = state
        try:
            self._keys = read(self._file)
        except KeysError as error:
            self.problem = f"The keys from before its last change are in use: {error}."
            log("keys_refused", "error", why=str(error))
            return
        self.problem = None
        log("keys_loaded", names=[key.name for key in self._keys])

    async def watch(self) -> None:
        """Look for as long as the service runs."""
        while self.required:
            await asyncio.sleep(LOOK)
            self.look()


def _state(file: Path | None) -> tuple[int, int, int] | None:
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
