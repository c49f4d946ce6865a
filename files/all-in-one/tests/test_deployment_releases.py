"""Deployments: complete or not there, named by their content, and marked when they were verified."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deployment import releases

PAYLOAD_ROOT = Path(__file__).resolve().parents[1]


class Box:
    """The folders of one VM, and the command line that works on them."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state = folder / "root", folder / "state"
        self.wanted: dict[str, str] = {}
        for path in (self.root / "releases", self.root / "payloads", self.state):
            path.mkdir(parents=True)
        self.payload = self.root / "payloads" / "0123456789abcdef"
        self.pruned: list[str] = []
        self.write_payload()
        self.write_wanted()

    def write_payload(self, files: int = 3) -> None:
        (self.payload / "pipeline").mkdir(parents=True, exist_ok=True)
        for number in range(files):
            (self.payload / "pipeline" / f"module{number}.py").write_text(f"NUMBER = {number}\n")

    def write_wanted(self, environment: str = "LOG_LEVEL=info\n", compose: str = "name: onebox\n") -> None:
        self.wanted = {".env": environment, "docker-compose.yml": compose}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "deployment", f"--root={self.root}", f"--state={self.state}", *arguments]

    def assemble_command(self) -> list[str]:
        return self.command("assemble", f"--payload={self.payload}")

    def start(self) -> subprocess.Popen[str]:
        """The command that assembles, at work."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            self.assemble_command(), cwd=PAYLOAD_ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.wanted))
        process.stdin.close()
        process.stdin = None
        return process

    def assemble(self) -> dict[str, Any]:
        output, errors = self.start().communicate(timeout=60)
        answer: dict[str, Any] = json.loads(output or "null")
        assert answer, errors
        return answer

    def begin(self, digest: str) -> bool:
        return releases.begin(self.state, digest)

    def accept(self, digest: str, keep: int = 3) -> bool:
        changed = releases.accept(self.root, self.state, digest)
        self.pruned = releases.prune(self.root / "releases", keep, {digest})
        return changed

    @property
    def marks(self) -> tuple[str | None, str | None]:
        """The current deployment and the verified one."""
        return releases.current(self.root), releases.verified(self.state)

    def deploy(self, environment: str, keep: int = 3) -> str:
        """A whole deployment with this `.env`; its digest."""
        self.write_wanted(environment)
        digest: str = self.assemble()["digest"]
        self.begin(digest)
        self.accept(digest, keep)
        return digest

    def audit(self) -> str:
        return (self.state / "audit.log").read_text()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_deployment_is_payload_and_templates_together(box: Box) -> None:
    answer = box.assemble()
    release = box.root / "releases" / answer["digest"]
    wanted = {name: text.encode() for name, text in box.wanted.items()}
    assert content(release) == content(box.payload) | wanted
    assert (release / ".env").stat().st_mode & 0o777 == 0o600
    assert answer["changed"] and box.marks == (None, None)


def test_the_same_input_is_the_same_deployment_and_no_change(box: Box) -> None:
    first, second = box.assemble(), box.assemble()
    assert first["digest"] == second["digest"]
    assert second["changed"] is False


def test_payload_environment_and_compose_each_make_another_deployment(box: Box) -> None:
    digests = {box.assemble()["digest"]}
    box.write_wanted(environment="LOG_LEVEL=debug\n")
    digests.add(box.assemble()["digest"])
    box.write_wanted(compose="name: other\n")
    digests.add(box.assemble()["digest"])
    box.payload = box.root / "payloads" / "fedcba9876543210"
    box.write_payload()
    digests.add(box.assemble()["digest"])
    assert len(digests) == 4


def killed_half_way(box: Box) -> list[str]:
    """SIGKILL a real run as soon as it has copied something; what it left below releases/."""
    process = box.start()
    deadline = time.monotonic() + 30
    while not any((box.root / "releases").glob(".*.partial/pipeline/*")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "it copied nothing"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    return [path.name for path in (box.root / "releases").iterdir()]


def test_a_run_killed_half_way_leaves_no_deployment_and_the_next_completes_it(box: Box) -> None:
    box.write_payload(files=5000)
    left = killed_half_way(box)
    assert all(name.endswith(".partial") for name in left), left
    answer = box.assemble()
    assert answer["changed"] is True
    assert len(content(box.root / "releases" / answer["digest"])) == 5000 + 2
    assert [path.name for path in (box.root / "releases").iterdir()] == [answer["digest"]]


def test_what_a_killed_run_left_goes_with_the_next_accepted_deployment(box: Box) -> None:
    box.write_payload(files=5000)
    killed_half_way(box)
    digest = box.deploy("LOG_LEVEL=debug\n")
    assert [path.name for path in (box.root / "releases").iterdir()] == [digest]


def test_a_missing_template_is_one_sentence_and_no_traceback(box: Box) -> None:
    del box.wanted[".env"]
    process = box.start()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == "The files given are docker-compose.yml; expected .env, docker-compose.yml.\n"
    assert not list((box.root / "releases").iterdir())


def test_an_accepted_deployment_is_current_verified_and_in_the_audit_log(box: Box) -> None:
    digest = box.assemble()["digest"]
    assert box.accept(digest) is True
    assert os.readlink(box.root / "current") == f"releases/{digest}"
    assert (box.root / "current" / "docker-compose.yml").is_file()
    assert box.marks == (digest, digest)
    assert f'"event": "deployed", "deployment": "{digest}"' in box.audit()


def test_accepting_it_again_changes_nothing(box: Box) -> None:
    digest = box.deploy("A=1\n")
    before = box.audit()
    assert box.accept(digest) is False
    assert box.audit() == before


def test_what_is_no_deployment_cannot_be_accepted(box: Box) -> None:
    with pytest.raises(releases.DeploymentError, match="nosuchdigest is not a deployment"):
        releases.accept(box.root, box.state, "nosuchdigest")
    assert not (box.root / "current").exists()


def test_once_begun_nothing_is_verified_until_it_is_accepted(box: Box) -> None:
    old = box.deploy("A=1\n")
    box.write_wanted("A=2\n")
    new = box.assemble()["digest"]
    assert box.begin(new) is True
    # A run killed here: the next one sees that nothing is verified, and that the old one is what to put back.
    assert box.assemble()["changed"] is False
    assert box.marks == (old, None)
    box.accept(new)
    assert box.marks == (new, new)


def test_the_verified_deployment_need_not_begin(box: Box) -> None:
    digest = box.deploy("A=1\n")
    assert box.begin(digest) is False
    assert box.marks == (digest, digest)


def test_the_previous_deployment_can_be_put_back(box: Box) -> None:
    old = box.deploy("A=1\n")
    box.write_wanted("A=2\n")
    box.begin(box.assemble()["digest"])
    assert box.accept(old) is True
    assert box.marks == (old, old)


def test_pruning_keeps_the_newest_and_says_what_went(box: Box) -> None:
    digests = [box.deploy(f"A={number}\n") for number in range(3)]
    box.write_wanted("A=3\n")
    last = box.assemble()["digest"]
    box.accept(last, keep=2)
    assert box.pruned == digests[:2]
    assert {path.name for path in (box.root / "releases").iterdir()} == {digests[2], last}


def test_pruning_never_removes_the_current_one(box: Box) -> None:
    first = box.deploy("A=1\n")
    for number in range(2, 5):
        box.write_wanted(f"A={number}\n")
        box.assemble()
    os.utime(box.root / "releases" / first, (1, 1))
    assert first not in releases.prune(box.root / "releases", 1, {first})
    assert (box.root / "current" / ".env").read_text() == "A=1\n"


def test_a_deployment_that_came_back_outlives_those_it_replaced(box: Box) -> None:
    first = box.deploy("A=1\n")
    others = [box.deploy(f"A={number}\n") for number in (2, 3)]
    assert box.deploy("A=1\n") == first
    box.deploy("A=4\n", keep=2)
    assert (box.root / "releases" / first).is_dir(), "it served last: it is what a rollback needs"
    assert not any((box.root / "releases" / digest).exists() for digest in others)
