"""The box from outside, as its users have it: SSH as the administrator, HTTP as a client, playbooks as the operator.

The environment says which box: BOX_SSH (a command line), BOX_URL, BOX_INVENTORY (a folder). shared/pytest.yml sets it.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

SSH = shlex.split(os.environ.get("BOX_SSH", "false"))
URL = os.environ.get("BOX_URL", "")
GENEROUS = 600  # seconds until something must have happened, however slow the machine
ROOT = Path(__file__).resolve().parents[2]


def vm(command: str, *, check: bool = True, timeout: float = 60) -> str:
    """Standard output of `command`, run on the VM as root."""
    done = subprocess.run(
        [*SSH, "sudo sh -c " + shlex.quote(command)], capture_output=True, text=True, check=False, timeout=timeout
    )
    assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def sql(statement: str) -> str:
    """What psql prints: rows of columns with | between them."""
    client = "docker exec onebox-postgres-1 psql --username=onebox --dbname=onebox --no-psqlrc -qAt -v ON_ERROR_STOP=1"
    return vm(f"{client} --command={shlex.quote(statement)}").strip()


def kill(service: str) -> None:
    """SIGKILL of the container's first process, as the kernel does it: Docker then starts it again by itself."""
    name = f"onebox-{service}-1"
    eventually(
        lambda: vm(
            f"pid=$(docker inspect --format '{{{{.State.Pid}}}}' {name})"
            ' && [ "$pid" -gt 1 ] && kill -KILL "$pid" && echo killed || true'
        )
    )


def key() -> str:
    """The generated key that may do everything."""
    return vm("cat /var/lib/onebox/secrets/api_key").strip()


def search_key() -> str:
    """The generated key of the page."""
    return vm("cat /var/lib/onebox/secrets/search_key").strip()


@dataclass(frozen=True)
class Answer:
    """`body` is decoded JSON; the names of `headers` are in lower case."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def code(self) -> str | None:
        """Of an error, the word for programs."""
        return self.body["error"]["code"] if self.status >= 400 else None


def call(path: str, body: Any = None, key: str | None = None, method: str | None = None) -> tuple[int, Any]:
    """Status and decoded JSON of one request."""
    answer = ask(path, body, key, method)
    return answer.status, answer.body


def ask(path: str, body: Any = None, key: str | None = None, method: str | None = None) -> Answer:
    """The answer to one request, whatever its status."""
    request = urllib.request.Request(URL + path, method=method or ("POST" if body is not None else "GET"))
    request.add_header("Content-Type", "application/json")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    data = json.dumps(body).encode() if body is not None else None
    try:
        with urllib.request.urlopen(request, data, timeout=60) as response:
            return _answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        return _answer(error.code, error.headers, error.read())


def _answer(status: int, headers: Message, content: bytes) -> Answer:
    return Answer(status, {name.lower(): value for name, value in headers.items()}, json.loads(content or b"null"))


def eventually(condition: Callable[[], object], seconds: float = GENEROUS) -> float:
    """Seconds until the condition held."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not happen in time"
        time.sleep(0.2)
    return time.monotonic() - started


def p95(seconds: list[float]) -> float:
    """Their 95th percentile."""
    return statistics.quantiles(seconds, n=20)[-1]


def put_document(key: str, identifier: str, text: str) -> None:
    """Ingest one document and wait until it is indexed."""
    status, body = call("/documents", {"id": identifier, "title": identifier, "text": text}, key)
    assert status == 202, body
    deadline = time.monotonic() + 60
    while (job := call(f"/jobs/{body['job']}", key=key)[1])["status"] not in ("done", "failed"):
        assert time.monotonic() < deadline, job
        time.sleep(0.2)
    assert job["status"] == "done", job


def start(playbook: str, variables: dict[str, object]) -> subprocess.Popen[str]:
    """A running ansible-playbook, in a process group of its own, with standard error in standard output."""
    # Molecule forces colours, which would stand between the words.
    environment = {name: value for name, value in os.environ.items() if "FORCE_COLOR" not in name}
    return subprocess.Popen(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            f"--inventory={os.environ['BOX_INVENTORY']}",
            f"playbooks/{playbook}",
            "--extra-vars",
            json.dumps(variables),
        ],
        cwd=ROOT,
        env=environment | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(process: subprocess.Popen[str], text: str) -> str:
    """The output of a running playbook up to the line that contains `text`."""
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if text in line:
            return output
    raise AssertionError(f"it ended without {text!r}:\n{output}")


def rest(process: subprocess.Popen[str]) -> str:
    """The output that `until` left, to the playbook's end."""
    assert process.stdout is not None
    output = process.stdout.read()
    process.wait(timeout=60)
    return output


def play(playbook: str, variables: dict[str, object] | None = None) -> tuple[int, str]:
    """Exit code and output of a playbook run with these extra variables."""
    process = start(playbook, variables or {})
    output, _ = process.communicate(timeout=900)
    print(output)
    assert "Traceback" not in output, output
    return process.returncode, output


def changed(output: str) -> int:
    """How many tasks changed something, over all plays of an output."""
    recap = [line for line in output.splitlines() if " changed=" in line]
    assert recap, output
    return sum(int(line.split("changed=")[1].split()[0]) for line in recap)
