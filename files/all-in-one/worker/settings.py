"""What the environment says, read once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.log import LEVELS


class SettingsError(RuntimeError):
    """A variable cannot be used; the message names it and what was expected."""


@dataclass(frozen=True)
class Settings:
    """Times in seconds. A lease is renewed four times before it would run out."""

    threads: int = 1
    lease: float = 60.0
    max_attempts: int = 3
    retry: float = 10.0
    poll: float = 0.5
    heartbeat: Path = Path("/tmp/worker.heartbeat")
    metrics_port: int = 0  # of the container; 0 is none
    log_level: str = "info"


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """SettingsError when a variable cannot be used."""
    return Settings(
        threads=int(_number(environment, "WORKER_THREADS", 1, 1, 256)),
        lease=_number(environment, "WORKER_LEASE_SECONDS", Settings.lease, 1, 3600),
        max_attempts=int(_number(environment, "WORKER_MAX_ATTEMPTS", Settings.max_attempts, 1, 100)),
        retry=_number(environment, "WORKER_RETRY_SECONDS", Settings.retry, 0, 3600),
        heartbeat=Path(environment.get("WORKER_HEARTBEAT_FILE") or Settings.heartbeat),
        metrics_port=int(_number(environment, "METRICS_PORT", 0, 0, 65535)),
        log_level=_level(environment, "LOG_LEVEL"),
    )


def _level(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name) or Settings.log_level
    if value not in LEVELS:
        raise SettingsError(f"{name} is {value!r}; write one of {', '.join(LEVELS)}.")
    return value


def _number(environment: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    value = environment.get(name) or str(default)
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise SettingsError(f"{name} is {value!r}; write a number from {least:g} to {most:g}.")
    return number
