"""The folders of deployments and data: there, with their owners and modes, whatever was there before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAYLOAD = Path(__file__).resolve().parents[1]
POSTGRES = 10002


@pytest.fixture
def place(tmp_path: Path) -> Path:
    assert os.geteuid() == 0, "these tests give folders to other users, as the VM's root does: run them as root"
    return tmp_path


def prepare(place: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "deployment", f"--root={place / 'root'}", f"--state={place / 'state'}", "prepare"]
    # A umask that takes more than most: the modes are given, not left over.
    done = subprocess.run(command, cwd=PAYLOAD, input="[]", capture_output=True, text=True, check=True, umask=0o077)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, found.st_mode & 0o7777


def test_a_fresh_machine_gets_all_of_them_and_its_secrets(place: Path) -> None:
    answer = prepare(place)
    assert answer["changed"] is True and len(answer["folders"]) == 3
    assert owner_and_mode(place / "root" / "releases") == (0, 0, 0o755)
    assert owner_and_mode(place / "state") == (0, 0, 0o755)
    assert owner_and_mode(place / "state" / "postgres") == (POSTGRES, POSTGRES, 0o700)
    assert (place / "state" / "secrets" / "api_key").stat().st_size > 0
    assert json.loads((place / "state" / "keys" / "keys.json").read_text())


def test_a_second_run_changes_nothing(place: Path) -> None:
    prepare(place)
    assert prepare(place) == {"changed": False, "folders": [], "created": [], "keys": False}


def test_what_somebody_changed_is_put_right_and_said(place: Path) -> None:
    prepare(place)
    data = place / "state" / "postgres"
    os.chown(data, 0, 0)
    data.chmod(0o755)
    answer = prepare(place)
    assert (answer["changed"], answer["folders"]) == (True, [str(data)])
    assert owner_and_mode(data) == (POSTGRES, POSTGRES, 0o700)


def test_data_that_is_there_stays(place: Path) -> None:
    prepare(place)
    (place / "state" / "postgres" / "PG_VERSION").write_text("17")
    (place / "state").chmod(0o700)
    prepare(place)
    assert (place / "state" / "postgres" / "PG_VERSION").read_text() == "17"
