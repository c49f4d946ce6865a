"""requirements.yml, for operators with an ansible-core of their own, names what the locked `ansible` brings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import ansible_collections
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = Path(next(iter(ansible_collections.__path__)))
WRITTEN: dict[str, str] = {
    entry["name"]: entry["version"] for entry in yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
}


def manifest(collection: str) -> dict[str, object]:
    """What the installed collection says of itself."""
    path = INSTALLED.joinpath(*collection.split("."), "MANIFEST.json")
    info: dict[str, object] = json.loads(path.read_text())["collection_info"]
    return info


def used_collections() -> Iterator[str]:
    """Every collection outside ansible.builtin whose module, filter or lookup a YAML file or template names."""
    names = {"/".join(path.parts[-2:]).replace("/", ".") for path in INSTALLED.glob("*/*") if path.is_dir()}
    for folder in ("roles", "playbooks", "molecule", "inventory", "templates"):
        for path in (ROOT / folder).rglob("*.[yj]*"):
            for name in re.findall(r"\b([a-z_0-9]+\.[a-z_0-9]+)\.[a-z_0-9]+\b", path.read_text()):
                if name in names:
                    yield name


@pytest.mark.parametrize("collection", sorted(WRITTEN))
def test_the_version_is_the_one_that_the_tests_run_with(collection: str) -> None:
    assert manifest(collection)["version"] == WRITTEN[collection]


def test_every_collection_in_use_is_written_down() -> None:
    assert set(used_collections()) <= set(WRITTEN)


@pytest.mark.parametrize("collection", sorted(WRITTEN))
def test_what_a_collection_needs_is_written_down_too(collection: str) -> None:
    needed = manifest(collection)["dependencies"]
    assert isinstance(needed, dict)
    assert set(needed) <= set(WRITTEN)


def test_nothing_is_written_down_that_nothing_uses() -> None:
    needed = set(used_collections())
    for collection in sorted(needed):
        dependencies = manifest(collection)["dependencies"]
        assert isinstance(dependencies, dict)
        needed |= set(dependencies)
    assert set(WRITTEN) == needed
