"""The module payload_archive, run by Ansible: the same content is the same archive, and other content is another."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from modules import run


def pack(source: Path, cache: Path) -> dict[str, Any]:
    return run("payload_archive", source=str(source), cache=str(cache))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "payload"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "main.py").write_text("print('hello')\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def names(archive: str) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


def test_the_archive_has_the_files_of_root_and_is_never_a_change(source: Path, cache: Path) -> None:
    answer = pack(source, cache)
    assert answer["changed"] is False
    with tarfile.open(answer["path"]) as tar:
        assert {member.name: (member.mode, member.uid, member.mtime) for member in tar} == {
            "app/main.py": (0o644, 0, 0),
            "run.sh": (0o755, 0, 0),
        }


def test_times_and_the_order_of_creation_do_not_count(source: Path, cache: Path, tmp_path: Path) -> None:
    first = pack(source, cache)
    copy = tmp_path / "copy"
    (copy / "app").mkdir(parents=True)
    for name in ("run.sh", "app/main.py"):
        (copy / name).write_bytes((source / name).read_bytes())
        os.utime(copy / name, (1, 1))
    (copy / "run.sh").chmod(0o700)
    second = pack(copy, tmp_path / "other-cache")
    assert first["digest"] == second["digest"]
    assert Path(first["path"]).read_bytes() == Path(second["path"]).read_bytes()


def test_caches_editor_leftovers_and_tests_stay_out(source: Path, cache: Path) -> None:
    digest = pack(source, cache)["digest"]
    for name in ("app/__pycache__/main.pyc", "app/main.py~", "app/.main.py.swp", "tests/test_main.py", ".mypy_cache/x"):
        path = source / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("leftover")
    answer = pack(source, cache)
    assert answer["digest"] == digest
    assert names(answer["path"]) == ["app/main.py", "run.sh"]


def test_one_changed_byte_is_another_digest(source: Path, cache: Path) -> None:
    before = pack(source, cache)
    (source / "app" / "main.py").write_text("print('hallo')\n")
    after = pack(source, cache)
    assert before["digest"] != after["digest"]
    assert Path(before["path"]).exists(), "the archive of the earlier content stays"


def test_the_executable_bit_counts(source: Path, cache: Path) -> None:
    before = pack(source, cache)
    (source / "app" / "main.py").chmod(0o755)
    assert before["digest"] != pack(source, cache)["digest"]


def test_a_files_name_counts(source: Path, cache: Path) -> None:
    before = pack(source, cache)
    (source / "run.sh").rename(source / "start.sh")
    assert before["digest"] != pack(source, cache)["digest"]


def test_an_archive_that_is_there_is_not_written_again(source: Path, cache: Path) -> None:
    path = Path(pack(source, cache)["path"])
    before = path.stat().st_mtime_ns
    pack(source, cache)
    assert path.stat().st_mtime_ns == before
    assert [entry.name for entry in cache.iterdir()] == [path.name], "nothing half-written stays"


def test_a_missing_folder_is_named(tmp_path: Path, cache: Path) -> None:
    answer = pack(tmp_path / "nowhere", cache)
    assert answer["rc"] != 0
    assert f"payload_source is {tmp_path / 'nowhere'}" in answer["msg"]
