"""The payload's commands as processes of their own, the way containers start them."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

ROOT = Path(__file__).parents[1]


def environment(database: str, models: dict[str, str], folder: Path, **more: str) -> dict[str, str]:
    """A container's environment for a test's database and models; `folder` holds its secrets and its heartbeat."""
    where = conninfo_to_dict(database)
    (folder / "postgres_password").write_text("not asked for", encoding="utf-8")
    (folder / "api_key").write_text("the-key\n", encoding="utf-8")
    write_keys(folder, {"the-key": ["admin"]})
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATABASE_HOST": str(where["host"]),
        "DATABASE_NAME": str(where["dbname"]),
        "DATABASE_USER": str(where["user"]),
        "DATABASE_PASSWORD_FILE": str(folder / "postgres_password"),
        "API_KEYS_FILE": str(folder / "keys.json"),
        "SELFTEST_KEY_FILE": str(folder / "selftest_key"),
        "WORKER_HEARTBEAT_FILE": str(folder / "heartbeat"),
        **models,
        **more,
    }


def write_keys(folder: Path, keys: dict[str, list[str]]) -> None:
    """Let these be the keys, as the deployment does it: by a new file."""
    entries = [
        {"name": f"key-{number}", "scopes": scopes, "sha256": hashlib.sha256(key.encode()).hexdigest()}
        for number, (key, scopes) in enumerate(keys.items(), 1)
    ]
    (folder / "partial").write_text(json.dumps(entries), encoding="utf-8")
    (folder / "partial").rename(folder / "keys.json")


def run(module: str, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The finished `python -m MODULE`."""
    return subprocess.run(
        [sys.executable, "-m", *module.split(), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Process:
    """A running `python -m MODULE` with its output in a file."""

    def __init__(self, module: str, *, environment: dict[str, str], output: Path) -> None:
        self.output = output
        with output.open("ab") as file:
            self._process = subprocess.Popen([sys.executable, "-m", module], env=environment, stdout=file, stderr=file)

    def kill(self) -> None:
        """SIGKILL: no chance to clean up."""
        self._process.kill()
        self._process.wait(timeout=30)

    def terminate(self, *, patience: float = 60) -> int:
        """SIGTERM, as `docker stop` sends it; returns the exit code, within `patience` seconds."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=patience)

    def end(self) -> None:
        if self._process.poll() is None:
            self.kill()


class Workers:
    """Worker processes; all of them are gone after the test."""

    def __init__(self, container: dict[str, str], folder: Path) -> None:
        self.container = container
        self._folder = folder
        self._started: list[Process] = []

    def start(self) -> Process:
        output = self._folder / f"worker-{len(self._started)}"
        self._started.append(Process("worker", environment=self.container, output=output))
        return self._started[-1]

    def indexed(self) -> Counter[int]:
        """How often each item was indexed, by all of them together."""
        lines = [
            json.loads(line)
            for process in self._started
            for line in process.output.read_text(encoding="utf-8").splitlines()
        ]
        return Counter(line["item"] for line in lines if line["event"] == "indexed")

    def end(self) -> None:
        for process in self._started:
            process.end()
