"""What the environment may say."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from app.keys import key_of
from app.settings import Margin, SettingsError, from_environment
from preflight import RANGES


def write(folder: Path, *entries: object) -> dict[str, str]:
    (folder / "keys.json").write_text(json.dumps(entries), encoding="utf-8")
    return {"API_KEYS_FILE": str(folder / "keys.json")}


def test_defaults_need_a_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"REQUIRE_API_KEY is true and API_KEYS_FILE .*/none cannot be read"):
        from_environment({"API_KEYS_FILE": str(tmp_path / "none")})


def test_the_file_holds_hashes_and_scopes(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    environment = write(tmp_path, {"name": "shop", "scopes": ["search", "ingest"], "sha256": digest})
    (key,) = from_environment(environment).keys
    assert key == key_of("shop", ["ingest", "search"], "secret")
    assert key.may("search") and key.may(None) and not key.may("admin")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("the-secret", "other fields than name, scopes, sha256 and rate_limit"),
        ({"name": "a", "scopes": ["search"], "key": "the-secret"}, "other fields than name, scopes, sha256"),
        ({"name": "", "scopes": ["search"], "sha256": "0" * 64}, "key 1 has no name"),
        (
            {"name": "a", "scopes": ["everything"], "sha256": "0" * 64},
            "other scopes than some of search, ingest, admin",
        ),
        ({"name": "a", "scopes": [], "sha256": "0" * 64}, "other scopes"),
        ({"name": "a", "scopes": ["search"], "sha256": "the-secret"}, "a sha256 that is not 64 hex digits"),
        (
            {"name": "a", "scopes": ["search"], "sha256": "0" * 64, "rate_limit": "the-secret"},
            "a rate_limit that is no whole number from 0",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_without_quoting_it(tmp_path: Path, entry: object, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        from_environment(write(tmp_path, entry))
    assert "the-secret" not in str(refused.value)


@pytest.mark.parametrize(("content", "said"), [("[]", "holds no list of keys"), ("the-secret", "is not JSON")])
def test_an_empty_key_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "keys.json").write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=said):
        from_environment({"API_KEYS_FILE": str(tmp_path / "keys.json")})


def test_without_required_keys_the_file_is_not_read() -> None:
    assert from_environment({"REQUIRE_API_KEY": "false", "API_KEYS_FILE": "/nowhere"}).keys == ()


def test_limits_come_from_the_environment() -> None:
    names = ("MAX_INPUTS", "MAX_CANDIDATES", "MAX_DOCUMENTS", "MAX_TEXT_CHARACTERS", "MAX_QUERY_CHARACTERS")
    settings = from_environment({"REQUIRE_API_KEY": "false", **{name: str(n) for n, name in enumerate(names, 1)}})
    found = (settings.max_inputs, settings.max_candidates, settings.max_documents, settings.max_text)
    assert (*found, settings.max_query) == (1, 2, 3, 4, 5)


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
        ("PUBLIC_SEARCH", "yes"),
        ("RATE_LIMIT", "many"),
        ("APP_PORT", "0"),
        ("APP_PORT", "http"),
        ("RERANK_MODE", "sometimes"),
        ("RERANK_AUTO_MARGINS", "0.3"),
        ("RERANK_AUTO_MARGINS", '[{"reranker": "r", "margin": 0.3}]'),
        ("RERANK_TOP_K", "-1"),
        ("RERANK_DEADLINE_MS", "2.5"),
        ("MAX_BODY_BYTES", "9" * 30),
        ("MAX_INPUTS", "0"),
        ("METRICS_PORT", "70000"),
        ("LOG_LEVEL", "loud"),
        ("DRAIN_SECONDS", "0"),
        ("MAX_TEXT_CHARACTERS", "1e6"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"{name} is {value!r}; write ")):
        from_environment({"REQUIRE_API_KEY": "false", name: value})


@pytest.mark.parametrize("name", RANGES)
def test_the_app_takes_the_numbers_that_preflight_lets_through(name: str) -> None:
    least, most = RANGES[name]
    variable = name.removeprefix("stack_").upper()
    for value in (least, most):
        from_environment({"REQUIRE_API_KEY": "false", variable: str(value)})
    for value in (least - 1, most + 1):
        with pytest.raises(SettingsError, match=f"{variable} is '{value}'"):
            from_environment({"REQUIRE_API_KEY": "false", variable: str(value)})
