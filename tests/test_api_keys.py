"""API keys of the inventory: refused in words that never quote one, and hashed before they leave the controller."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from keys import api_key_hashes, api_key_problems

PLAIN = "Xk29-fq0s8d7f6a5s4d3f2g1h0j9k8l7m6"
DIGEST = hashlib.sha256(PLAIN.encode()).hexdigest()


def key(**changes: Any) -> dict[str, Any]:
    """A good key with `changes`; None takes a field away."""
    changed = {"name": "shop", "scopes": ["search"], "sha256": DIGEST} | changes
    return {field: value for field, value in changed.items() if value is not None}


def test_a_key_or_its_hash_does() -> None:
    keys = [key(), key(name="crawler", scopes=["ingest", "admin"], sha256=None, key=PLAIN + "2")]
    assert api_key_problems(keys) == api_key_problems([]) == []


def test_only_hashes_leave_the_controller() -> None:
    hashed = api_key_hashes([key(sha256=None, key=PLAIN), key(name="other", rate_limit="0")])
    assert hashed == [
        {"name": "shop", "scopes": ["search"], "sha256": DIGEST},
        {"name": "other", "scopes": ["search"], "sha256": DIGEST, "rate_limit": 0},
    ]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (PLAIN, "stack_api_keys is no list"),
        ([PLAIN], "stack_api_keys, 1: is no entry"),
        ([key(), key(name="Shop!")], "stack_api_keys, 2: name is 'Shop!'"),
        ([key(name="operator")], "which are the box's own"),
        ([key(name=None)], "name is None"),
        ([key(scopes=[])], "scopes is []"),
        ([key(scopes="search")], "scopes is 'search'"),
        ([key(scopes=["read"])], "expected a list of some of search, ingest, admin"),
        ([key(sha256=None)], "has neither sha256 nor key"),
        ([key(key=PLAIN)], "has both sha256 and key"),
        ([key(sha256=PLAIN)], "sha256 is not 64 small hex digits"),
        ([key(sha256=None, key="short")], "key is too easy to guess"),
        ([key(sha256=None, key="a" * 64)], "key is too easy to guess"),
        ([key(sha256=None, key=PLAIN + " x")], "key is too easy to guess"),
        ([key(), key()], "has the name of shop twice"),
        ([key(), key(name="other")], "has the key of shop twice"),
        ([key(scope=["search"])], "scope is not a field of a key"),
        ([key(rate_limit="many")], "rate_limit is 'many'; expected requests a minute"),
        ([key(rate_limit=-1)], "rate_limit is -1"),
        ([key(rate_limit=True)], "rate_limit is True"),
    ],
)
def test_what_cannot_work_is_said_without_the_key(keys: Any, said: str) -> None:
    problems = " ".join(api_key_problems(keys))
    assert said in problems
    assert PLAIN not in problems and DIGEST not in problems
