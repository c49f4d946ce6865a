"""A stand-in box for every test that asks for one, and the programs on the import path."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from standin import KEY, StandinBox

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture
def standin() -> Iterator[StandinBox]:
    with StandinBox() as box:
        yield box


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "api_key"
    path.write_text(f"{KEY}\n", encoding="utf-8")
    return path
