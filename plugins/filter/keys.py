# SPDX-License-Identifier: MIT
"""API keys of the inventory: what is wrong with them, and their hashes. No sentence quotes a key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

SCOPES = ("search", "ingest", "admin")
GENERATED = ("operator", "page", "selftest")
FIELDS = ("name", "scopes", "sha256", "key", "rate_limit")
LEAST = 32  # characters
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
MAKE = "Make one with `openssl rand -hex 32`; its hash with `printf %s KEY | sha256sum`."


def api_key_hashes(keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name, scopes, sha256 and rate limit, where it has one, of each key."""
    return [
        {"name": key["name"], "scopes": key["scopes"], "sha256": _hash(key)}
        | ({"rate_limit": int(key["rate_limit"])} if key.get("rate_limit") is not None else {})
        for key in keys
    ]


def api_key_problems(keys: Any) -> list[str]:
    """A sentence for each thing that is wrong with stack_api_keys."""
    if not isinstance(keys, list):
        return ["stack_api_keys is no list; expected entries of name, scopes and sha256 (or key). Write [] for none."]
    problems = [
        problem for number, key in enumerate(keys, 1) for problem in _problems(key, f"stack_api_keys, {number}")
    ]
    if problems:
        return problems
    for field, values in (("name", [key["name"] for key in keys]), ("key", [_hash(key) for key in keys])):
        twice = sorted({keys[values.index(value)]["name"] for value in values if values.count(value) > 1})
        problems += [
            f"stack_api_keys has the {field} of {name} twice; expected each once. Take one out." for name in twice
        ]
    return problems


def _problems(key: Any, where: str) -> Iterator[str]:
    if not isinstance(key, dict):
        yield f"{where}: is no entry; expected name, scopes and sha256 (or key)."
        return
    name, scopes, digest, plain, rate_limit = (key.get(field) for field in FIELDS)
    if unknown := sorted(str(field) for field in set(key) - set(FIELDS)):
        yield (
            f"{where}: {', '.join(unknown)} is not a field of a key; expected name, scopes, sha256 (or key) and, if it"
            " has its own, rate_limit."
        )
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.startswith(GENERATED):
        yield (
            f"{where}: name is {name!r}; expected up to 32 small letters, digits and hyphens, and none that begins with"
            f" {', '.join(GENERATED)}, which are the box's own. Choose another name."
        )
    if not isinstance(scopes, list) or not scopes or any(scope not in SCOPES for scope in scopes):
        yield f"{where}: scopes is {scopes!r}; expected a list of some of {', '.join(SCOPES)}. Write [search], say."
    if (plain is None) == (digest is None):
        has = "neither sha256 nor key" if plain is None else "both sha256 and key"
        yield f"{where}: has {has}; expected one of them. {MAKE}"
    elif digest is not None and (not isinstance(digest, str) or not _SHA256.fullmatch(digest)):
        yield f"{where}: sha256 is not 64 small hex digits. {MAKE}"
    elif plain is not None and not _long(plain):
        yield f"{where}: key is too easy to guess; expected {LEAST} random characters or more, no spaces. {MAKE}"
    if rate_limit is not None and not re.fullmatch("[0-9]{1,6}", str(rate_limit)):
        yield (
            f"{where}: rate_limit is {rate_limit!r}; expected requests a minute, 0 for no limit. Leave it out for"
            " stack_rate_limit."
        )


def _long(plain: Any) -> bool:
    return (
        isinstance(plain, str)
        and len(plain) >= LEAST
        and len(set(plain)) >= 8
        and re.fullmatch(r"[!-~]+", plain) is not None
    )


def _hash(key: dict[str, Any]) -> str:
    return str(key.get("sha256") or hashlib.sha256(str(key["key"]).encode("utf-8")).hexdigest())


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"api_key_hashes": api_key_hashes, "api_key_problems": api_key_problems}
