"""docs/roles/ says what the roles' argument specs say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import generate_roles

GENERATOR = Path(generate_roles.__file__)


def test_the_pages_in_the_repository_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, GENERATOR, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_named_and_check_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate_roles, "PAGES", tmp_path)
    assert generate_roles.main([]) == 0
    (tmp_path / "docker.md").write_text("edited by hand\n")
    assert generate_roles.main(["--check"]) == 1
    assert "docker.md" in capsys.readouterr().err
    assert (tmp_path / "docker.md").read_text() == "edited by hand\n"


def test_the_page_of_a_removed_role_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_roles, "PAGES", tmp_path)
    (tmp_path / "gone.md").write_text("# gone\n")
    generate_roles.main([])
    assert not (tmp_path / "gone.md").exists()


def test_a_page_shows_type_choices_default_and_meaning() -> None:
    page = generate_roles.pages()["docker.md"]
    assert "| `docker_source` | str: `debian`, `docker` | `debian` | The distribution's packages" in page
    assert "| `docker_registry_mirrors` | list of str | `[]` |" in page
