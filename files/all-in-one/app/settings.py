"""What the environment says, read once."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.reranking import MODES, Margin, Mode


class SettingsError(RuntimeError):
    """A variable is missing or cannot be used; the message names it and what was expected."""


@dataclass(frozen=True)
class Settings:
    """`keys` is empty when requests need none."""

    port: int = 8000
    keys: tuple[str, ...] = ()
    deployment: str = ""
    redis_url: str = ""
    rerank_mode: Mode = "auto"  # of searches that name none
    rerank_margins: tuple[Margin, ...] = ()
    rerank_top_k: int = 20
    rerank_deadline: float = 2.0  # seconds
    max_body: int = 8 * 1024 * 1024  # bytes
    max_inputs: int = 2048
    max_candidates: int = 1000
    max_documents: int = 1000
    max_text: int = 1_000_000  # characters of one document or input
    query_wait: float = 2.0  # seconds of predicted wait above which a query is asked to come back
    bulk_wait: float = 30.0  # the same for bulk work


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """SettingsError when a variable cannot be used."""
    required = _boolean(environment, "REQUIRE_API_KEY", True)
    key_file = environment.get("API_KEY_FILE", "/run/secrets/api_key")
    return Settings(
        port=_integer(environment, "APP_PORT", 8000, 1, 65535),
        keys=_read_keys(key_file) if required else (),
        deployment=environment.get("ONEBOX_DEPLOYMENT", ""),
        redis_url=environment.get("REDIS_URL", ""),
        rerank_mode=_mode(environment, "RERANK_MODE"),
        rerank_margins=_margins(environment, "RERANK_AUTO_MARGINS"),
        rerank_top_k=_integer(environment, "RERANK_TOP_K", 20, 0, 200),
        rerank_deadline=_integer(environment, "RERANK_DEADLINE_MS", 2000, 1, 60_000) / 1000,
        max_body=_integer(environment, "MAX_BODY_BYTES", Settings.max_body, 1024, 1 << 30),
        query_wait=_integer(environment, "QUERY_WAIT_MS", 2000, 1, 600_000) / 1000,
        bulk_wait=_integer(environment, "BULK_WAIT_MS", 30_000, 1, 600_000) / 1000,
    )


def _read_keys(file: str) -> tuple[str, ...]:
    """One key a line: during a rotation the old and the new one are both good."""
    try:
        lines = Path(file).read_text(encoding="utf-8").split()
    except OSError as error:
        raise SettingsError(
            f"REQUIRE_API_KEY is true and API_KEY_FILE {file} cannot be read ({error.strerror}); "
            "mount the key there, or set REQUIRE_API_KEY=false."
        ) from None
    if not lines:
        raise SettingsError(f"API_KEY_FILE {file} is empty; write a key into it.")
    return tuple(lines)


def _mode(environment: Mapping[str, str], name: str) -> Mode:
    value = environment.get(name) or "auto"
    for mode in MODES:
        if value == mode:
            return mode
    raise SettingsError(f"{name} is {value!r}; write one of {', '.join(MODES)}.")


def _margins(environment: Mapping[str, str], name: str) -> tuple[Margin, ...]:
    value = environment.get(name) or "[]"
    try:
        return tuple(
            Margin(str(entry["reranker"]), str(entry["embedding"]), float(entry["margin"]))
            for entry in json.loads(value)
        )
    except (ValueError, TypeError, KeyError):
        raise SettingsError(
            f'{name} is {value!r}; write a JSON list of {{"reranker": NAME, "embedding": NAME, "margin": 0 to 1}}.'
        ) from None


def _boolean(environment: Mapping[str, str], name: str, default: bool) -> bool:
    value = environment.get(name, "").lower() or str(default).lower()
    if value not in ("true", "false"):
        raise SettingsError(f"{name} is {value!r}; write true or false.")
    return value == "true"


def _integer(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    value = environment.get(name) or str(default)
    if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
        raise SettingsError(f"{name} is {value!r}; write a whole number from {least} to {most}.")
    return int(value)
