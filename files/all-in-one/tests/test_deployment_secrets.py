"""Secrets of the box: created once, each for its reader only."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from deployment import secrets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert os.geteuid() == 0, "these tests give files to other users, as the VM's root does: run them as root"
    return tmp_path / "secrets"


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, found.st_mode & 0o777


def test_each_secret_is_its_readers_only(folder: Path) -> None:
    assert secrets.ensure(folder) == ["api_key", "search_key", "postgres_password"]
    assert owner_and_mode(folder / "api_key") == (0, 0, 0o600)
    assert owner_and_mode(folder / "search_key") == (0, 0, 0o600)
    assert owner_and_mode(folder / "postgres_password") == (10001, 10002, 0o640)
    assert owner_and_mode(folder)[2] == 0o711, "containers pass through, nobody lists"


def test_secrets_are_long_and_differ(folder: Path) -> None:
    secrets.ensure(folder)
    values = {path.read_text() for path in folder.iterdir()}
    assert len(values) == 3
    assert all(len(value) >= 43 and value.strip() == value for value in values)


def test_a_second_run_leaves_them_alone(folder: Path) -> None:
    secrets.ensure(folder)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert secrets.ensure(folder) == []
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_only_a_missing_one_is_made(folder: Path) -> None:
    secrets.ensure(folder)
    kept = (folder / "api_key").read_text()
    (folder / "postgres_password").unlink()
    assert secrets.ensure(folder) == ["postgres_password"]
    assert (folder / "api_key").read_text() == kept


def test_what_a_killed_run_left_is_no_secret(folder: Path) -> None:
    folder.mkdir()
    (folder / ".api_key.partial").write_text("half")
    secrets.ensure(folder)
    assert (folder / "api_key").read_text() != "half"
    assert sorted(path.name for path in folder.iterdir()) == ["api_key", "postgres_password", "search_key"]


def test_a_strict_umask_changes_no_mode(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        secrets.ensure(folder)
    finally:
        os.umask(before)
    assert owner_and_mode(folder)[2] == 0o711
    assert owner_and_mode(folder / "postgres_password")[2] == 0o640


def written(state: Path) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = json.loads((state / "keys" / "keys.json").read_text(encoding="utf-8"))
    return entries


def test_the_app_gets_the_hashes_of_all_keys(folder: Path, tmp_path: Path) -> None:
    secrets.ensure(folder)
    shop: secrets.Key = {"name": "shop", "scopes": ["search"], "sha256": "ab" * 32}
    assert secrets.write_keys(tmp_path, [shop])
    plain = (folder / "api_key").read_text()
    operator, page, given = written(tmp_path)
    digest = hashlib.sha256(plain.encode()).hexdigest()
    assert operator == {"name": "operator", "scopes": ["admin"], "rate_limit": 0, "sha256": digest}
    assert (page["name"], page["scopes"]) == ("page", ["search"])
    assert given == shop
    assert plain not in (tmp_path / "keys" / "keys.json").read_text()
    assert owner_and_mode(tmp_path / "keys") == (0, 10001, 0o750)
    assert owner_and_mode(tmp_path / "keys" / "keys.json") == (0, 10001, 0o640)


def test_the_same_keys_again_change_nothing(folder: Path, tmp_path: Path) -> None:
    secrets.ensure(folder)
    assert secrets.write_keys(tmp_path, [])
    assert not secrets.write_keys(tmp_path, [])
    assert secrets.write_keys(tmp_path, [{"name": "shop", "scopes": ["search"], "sha256": "ab" * 32}])
    assert secrets.write_keys(tmp_path, [])


def test_each_line_of_a_generated_file_is_a_key(folder: Path, tmp_path: Path) -> None:
    secrets.ensure(folder)
    (folder / "api_key").write_text("new\nold\n")
    secrets.write_keys(tmp_path, [])
    assert [key["name"] for key in written(tmp_path)] == ["operator", "operator-2", "page"]
