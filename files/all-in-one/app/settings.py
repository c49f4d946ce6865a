"""What the environment says, read once."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from app.keys import Key, KeysError, read
from app.log import LEVELS

Mode = Literal["off", "auto", "always", "shadow"]
MODES: tuple[Mode, ...] = get_args(Mode)


class SettingsError(RuntimeError):
    """A variable is missing or cannot be used; the message names it and what was expected."""


@dataclass(frozen=True)
class Margin:
    """What was measured for two models, named as their profiles are.

    Where the first candidate of the fused order leads the second by `least` or more, judging is not worth its time.
    """

    reranker: str
    embedding: str
    least: float


@dataclass(frozen=True)
class Settings:
    """`keys` is empty when requests need none."""

    port: int = 8000
    metrics_port: int = 0  # of the container; 0 is none
    log_level: str = "info"
    drain: int = 20  # seconds that requests which have begun get once the app is told to stop
    keys: tuple[Key, ...] = ()
    key_file: Path | None = None  # where changes of them appear
    selftest_key_file: Path = Path("/tmp/selftest_key")
    public_search: bool = False  # the page and POST /search without a key
    rate_limit: int = 0  # requests a minute of each key; 0 is no limit
    public_rate_limit: int = 0  # searches a minute of each address without a key
    proxies: int = 0  # in front of the box, each of which appends its client to X-Forwarded-For
    deployment: str = ""
    redis_url: str = ""
    keep_generations: int = 1  # of the index that have served, to go back to
    rerank_mode: Mode = "auto"  # of searches that name none
    rerank_margins: tuple[Margin, ...] = ()
    rerank_top_k: int = 20
    rerank_deadline: float = 2.0  # seconds
    max_body: int = 8 * 1024 * 1024  # bytes
    max_inputs: int = 2048
    max_candidates: int = 1000
    max_documents: int = 1000
    max_text: int = 1_000_000  # characters of one document or input
    max_query: int = 8192  # characters of a search
    query_wait: float = 2.0  # seconds of predicted wait above which a query is asked to come back
    bulk_wait: float = 30.0  # the same for bulk work


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """SettingsError when a variable cannot be used."""
    required = _boolean(environment, "REQUIRE_API_KEY", True)
    key_file = Path(environment.get("API_KEYS_FILE") or "/run/onebox/keys/keys.json")
    return Settings(
        port=_integer(environment, "APP_PORT", 8000, 1, 65535),
        metrics_port=_integer(environment, "METRICS_PORT", 0, 0, 65535),
        log_level=_choice(environment, "LOG_LEVEL", LEVELS, "info"),
        drain=_integer(environment, "DRAIN_SECONDS", 20, 1, 3600),
        keys=_read_keys(key_file) if required else (),
        key_file=key_file if required else None,
        selftest_key_file=Path(environment.get("SELFTEST_KEY_FILE") or Settings.selftest_key_file),
        public_search=_boolean(environment, "PUBLIC_SEARCH", False),
        rate_limit=_integer(environment, "RATE_LIMIT", 0, 0, 1_000_000),
        public_rate_limit=_integer(environment, "PUBLIC_RATE_LIMIT", 0, 0, 1_000_000),
        proxies=_integer(environment, "TRUSTED_PROXIES", 0, 0, 10),
        deployment=environment.get("ONEBOX_DEPLOYMENT", ""),
        redis_url=environment.get("REDIS_URL", ""),
        keep_generations=_integer(environment, "STORE_KEEP_GENERATIONS", 1, 0, 10),
        rerank_mode=_mode(environment, "RERANK_MODE"),
        rerank_margins=_margins(environment, "RERANK_AUTO_MARGINS"),
        rerank_top_k=_integer(environment, "RERANK_TOP_K", 20, 0, 200),
        rerank_deadline=_integer(environment, "RERANK_DEADLINE_MS", 2000, 1, 60_000) / 1000,
        max_body=_integer(environment, "MAX_BODY_BYTES", Settings.max_body, 1024, 1 << 30),
        max_inputs=_integer(environment, "MAX_INPUTS", Settings.max_inputs, 1, 100_000),
        max_candidates=_integer(environment, "MAX_CANDIDATES", Settings.max_candidates, 1, 100_000),
        max_documents=_integer(environment, "MAX_DOCUMENTS", Settings.max_documents, 1, 100_000),
        max_text=_integer(environment, "MAX_TEXT_CHARACTERS", Settings.max_text, 1, 100_000_000),
        max_query=_integer(environment, "MAX_QUERY_CHARACTERS", Settings.max_query, 1, 1_000_000),
        query_wait=_integer(environment, "QUERY_WAIT_MS", 2000, 1, 600_000) / 1000,
        bulk_wait=_integer(environment, "BULK_WAIT_MS", 30_000, 1, 600_000) / 1000,
    )


def _read_keys(file: Path) -> tuple[Key, ...]:
    try:
        return read(file)
    except KeysError as error:
        raise SettingsError(
            f"REQUIRE_API_KEY is true and API_KEYS_FILE cannot be used: {error}; run playbooks/site.yml, "
            "which writes it, or set REQUIRE_API_KEY=false."
        ) from None


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


def _choice(environment: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = environment.get(name) or default
    if value not in choices:
        raise SettingsError(f"{name} is {value!r}; write one of {', '.join(choices)}.")
    return value


def _integer(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    value = environment.get(name) or str(default)
    if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
        raise SettingsError(f"{name} is {value!r}; write a whole number from {least} to {most}.")
    return int(value)
