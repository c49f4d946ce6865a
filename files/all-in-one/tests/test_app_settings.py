"""What the environment may say."""

import re
from pathlib import Path

import pytest

from app.reranking import Margin
from app.settings import SettingsError, from_environment


def test_defaults_need_a_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"REQUIRE_API_KEY is true and API_KEY_FILE .* cannot be read"):
        from_environment({"API_KEY_FILE": str(tmp_path / "none")})


def test_every_line_of_the_key_file_is_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n\n two \n", encoding="utf-8")
    assert from_environment({"API_KEY_FILE": str(file)}).keys == ("one", "two")


def test_an_empty_key_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="is empty; write a key into it"):
        from_environment({"API_KEY_FILE": str(file)})


def test_without_required_keys_the_file_is_not_read() -> None:
    assert from_environment({"REQUIRE_API_KEY": "false", "API_KEY_FILE": "/nowhere"}).keys == ()


def test_an_empty_variable_means_its_default() -> None:
    settings = from_environment({"REQUIRE_API_KEY": "false", "APP_PORT": "", "RERANK_DEADLINE_MS": ""})
    assert (settings.port, settings.rerank_deadline) == (8000, 2.0)


def test_margins_are_read_as_the_inventory_writes_them() -> None:
    written = '[{"embedding": "e5", "margin": 0.25, "reranker": "bge"}]'
    settings = from_environment({"REQUIRE_API_KEY": "false", "RERANK_AUTO_MARGINS": written, "RERANK_MODE": "shadow"})
    assert settings.rerank_margins == (Margin("bge", "e5", 0.25),)
    assert settings.rerank_mode == "shadow"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REQUIRE_API_KEY", "maybe"),
        ("APP_PORT", "0"),
        ("APP_PORT", "http"),
        ("RERANK_MODE", "sometimes"),
        ("RERANK_AUTO_MARGINS", "0.3"),
        ("RERANK_AUTO_MARGINS", '[{"reranker": "r", "margin": 0.3}]'),
        ("RERANK_TOP_K", "-1"),
        ("RERANK_DEADLINE_MS", "2.5"),
        ("MAX_BODY_BYTES", "9" * 30),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"{name} is {value!r}; write ")):
        from_environment({"REQUIRE_API_KEY": "false", name: value})
