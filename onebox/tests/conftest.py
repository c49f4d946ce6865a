"""A stand-in box for every test that asks for one, and a file with its key."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from onebox import ingesting
from onebox.tests.standin import KEY, StandinBox


@pytest.fixture
def standin() -> Iterator[StandinBox]:
    with StandinBox() as box:
        yield box


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets" / "api_key"
    path.parent.mkdir()
    path.write_text(f"{KEY}\n", encoding="utf-8")
    return path


@pytest.fixture
def box_arguments(standin: StandinBox, key_file: Path) -> list[str]:
    """What tells a program of the stand-in."""
    return ["--url", standin.url, "--key-file", str(key_file)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingesting, "POLL_S", 0.01)
    for name in ("ONEBOX_URL", "ONEBOX_KEY_FILE", "ONEBOX_KEY"):
        monkeypatch.delenv(name, raising=False)
