"""Deploying: what happens to links, index, containers and marks, with a Docker that does as it is told."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import damage
import pytest
import tiny_models

import deployment
from deployment import releases
from host import lease

PAYLOAD = Path(deployment.__file__).parent.parent
# Docker is outside the payload. It notes its calls, and fails at, or waits in, those that hold a text it was given.
# It remembers from which deployment the containers were made.
DOCKER = """#!/bin/sh
if [ "$1" = ps ]; then cat "$DOCKER_FOLDER/containers" 2>/dev/null; exit 0; fi
case "$*" in */releases/*) ;; *) exit 9;; esac
echo "$*" | sed 's|compose --project-directory .*/releases/||' >> "$DOCKER_FOLDER/calls"
while [ -s "$DOCKER_FOLDER/wait" ] && echo "$*" | grep -qF "$(cat "$DOCKER_FOLDER/wait")"; do sleep 0.05; done
if [ -s "$DOCKER_FOLDER/fail" ] && echo "$*" | grep -qf "$DOCKER_FOLDER/fail"; then
    echo "broken on purpose" >&2; exit 1
fi
case "$*" in
    *" logs "*) echo "app-1  | a last line";;
    *" up "*--remove-orphans)
        for service in postgres redis app worker; do
            printf '%s\\t%s\\tUp 5 seconds (healthy)\\n' "$service" "$3"
        done > "$DOCKER_FOLDER/containers";;
esac
"""


class Box:
    """The folders of one VM with releases of models, and the command line that works on them."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.root, self.state, self.models, self.docker = (
            folder / "root",
            folder / "state",
            models,
            folder / "docker",
        )
        self.payload = self.root / "payloads" / "0123456789abcdef"
        for path in (self.root / "releases", self.payload, self.state, self.docker):
            path.mkdir(parents=True)
        (self.docker / "docker").write_text(DOCKER)
        (self.docker / "docker").chmod(0o755)

    def assemble(self, reranker: str = "tiny-reranker-1", embedding: str = "tiny-embedding-1") -> str:
        wanted = {".env": f"# models\nEMBED_RELEASE={embedding}\nRERANK_RELEASE={reranker}\n"}
        name, _ = releases.assemble(self.root, self.payload, {**wanted, "docker-compose.yml": "name: onebox\n"})
        return name

    def start(self, digest: str, *options: str) -> subprocess.Popen[str]:
        folders = [f"--root={self.root}", f"--state={self.state}"]
        more = [f"--digest={digest}", f"--models={self.models}", f"--payload={self.payload}", *options]
        environment = os.environ | {
            "PATH": f"{self.docker}:{os.environ['PATH']}",
            "DOCKER_FOLDER": str(self.docker),
        }
        command = [sys.executable, "-m", "deployment", *folders, "deploy", *more]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=PAYLOAD, env=environment, stdout=pipe, stderr=pipe, text=True)

    def deploy(self, digest: str, *options: str) -> tuple[dict[str, Any], str]:
        """The JSON line, empty where it failed, and what was said."""
        output, said = self.start(digest, *options).communicate(timeout=60)
        assert "Traceback" not in said, said
        return json.loads(output or "{}"), said

    def tell_docker(self, verb: str, text: str) -> None:
        (self.docker / verb).write_text(text)

    def calls(self, since: int = 0) -> list[str]:
        file = self.docker / "calls"
        return file.read_text().splitlines()[since:] if file.is_file() else []

    @property
    def links(self) -> dict[str, str]:
        found = (link for link in sorted(self.models.iterdir()) if link.is_symlink())
        return {link.name: os.readlink(link).removeprefix("releases/") for link in found}

    @property
    def marks(self) -> tuple[str | None, str | None]:
        return releases.current(self.root), releases.verified(self.state)


@pytest.fixture
def box(releases: Path, tmp_path: Path) -> Box:
    models = damage.own_models(releases, tmp_path)
    tiny_models.write_reranker_release(models / "releases", release="tiny-reranker-2")
    for link in ("emb", "rerank", "rerank.previous"):
        (models / link).unlink()
    return Box(tmp_path, models)


def test_a_deployment_is_tried_out_then_serves_and_the_links_name_its_models(box: Box) -> None:
    digest = box.assemble()
    answer, _ = box.deploy(digest)
    assert answer == {"changed": True, "pruned": []}
    assert [call.removeprefix(f"{digest} ").split(" --")[0] for call in box.calls()] == [
        "up",
        "run",
        "run",
        "up",
        "exec",
    ]
    assert box.marks == (digest, digest)
    assert box.links == {"emb": "tiny-embedding-1", "rerank": "tiny-reranker-1"}


def test_a_verified_deployment_is_left_alone_even_while_another_run_is_at_work(box: Box) -> None:
    digest = box.assemble()
    box.deploy(digest)
    before = len(box.calls())
    with lease.hold(box.state, owner="another", command="build"):
        assert box.deploy(digest)[0] == {"changed": False}
    assert box.calls(before) == []


@pytest.mark.parametrize(
    "fails,step",
    [
        ("migrate$", "Migrate the database"),
        ("candidate$", "Let a candidate answer"),
        ("{digest} up .*remove-orphans", "Start the containers"),
        ("{digest} exec", "Verify with an embed"),
    ],
)
def test_what_fails_leaves_the_previous_models_and_containers(box: Box, fails: str, step: str) -> None:
    old = box.assemble()
    box.deploy(old)
    links = box.links
    new = box.assemble("tiny-reranker-2")
    box.tell_docker("fail", fails.format(digest=new))
    before = len(box.calls())
    answer, said = box.deploy(new)
    assert answer == {}
    for part in (f"Deployment {new} failed at: {step}", "broken on purpose", "app-1  | a last line"):
        assert part in said
    assert box.links == links
    again = [call for call in box.calls(before) if call.startswith(old)]
    assert again[0].endswith("migrate"), "the index still names the release of the deployment that failed"
    if "$" in fails:
        return  # what fails for every deployment cannot be put back either
    assert said.rstrip().endswith(f"The previous deployment {old} serves again.")
    assert box.marks == (old, old)


def test_an_index_that_cannot_be_put_back_is_said_and_the_containers_are_put_back(box: Box) -> None:
    old = box.assemble()
    box.deploy(old)
    new = box.assemble("tiny-reranker-2")
    box.tell_docker("fail", f"{new} exec\n{old} .*migrate$")
    _, said = box.deploy(new)
    assert "The index could not be put back to its release (broken on purpose)." in said
    assert f"The previous deployment {old} serves again." in said
    assert box.marks == (old, old)


def test_links_that_were_rolled_back_before_are_put_back_too(box: Box) -> None:
    """rollback.yml swaps the links first, and then deploys what they name."""
    old = box.assemble("tiny-reranker-2")
    box.deploy(box.assemble())
    box.deploy(old)
    command = [sys.executable, "-m", "modelbuild", "rollback", "--kind=reranker", f"--models-dir={box.models}"]
    subprocess.run([*command, f"--state-dir={box.state}"], cwd=PAYLOAD, check=True, capture_output=True)
    links = box.links
    assert (links["rerank"], links["rerank.previous"]) == ("tiny-reranker-1", "tiny-reranker-2")
    new = box.assemble()
    box.tell_docker("fail", f"{new} exec")
    assert f"{old} serves again" in box.deploy(new)[1]
    assert (box.links["rerank"], box.links["rerank.previous"]) == ("tiny-reranker-2", "tiny-reranker-1")


def test_a_damaged_model_is_not_served(box: Box) -> None:
    old = box.assemble()
    box.deploy(old)
    damage.flip(box.models / "releases" / "tiny-reranker-2" / "model.onnx")
    _, said = box.deploy(box.assemble("tiny-reranker-2"))
    assert "failed at: Activate its models" in said and "damaged" in said and f"{old} serves again" in said
    assert box.links["rerank"] == "tiny-reranker-1"


def test_the_first_deployment_has_nothing_to_be_put_back(box: Box) -> None:
    box.tell_docker("fail", "candidate")
    assert "There is no previous deployment to put back." in box.deploy(box.assemble())[1]
    assert box.marks == (None, None) and box.links == {}


def test_two_deployments_at_once_come_one_after_the_other(box: Box) -> None:
    first, second = box.assemble(), box.assemble("tiny-reranker-2")
    box.tell_docker("wait", f"{first} exec")
    one = box.start(first, "--owner=anna@desk")
    while not any(call.startswith(f"{first} exec") for call in box.calls()):
        time.sleep(0.05)
    answer, said = box.deploy(second)
    assert answer == {} and "anna@desk (deploy, process" in said
    two = box.start(second, "--lock-wait=60")
    time.sleep(0.5)
    assert not any(call.startswith(second) for call in box.calls())
    box.tell_docker("wait", "")
    for process in (one, two):
        process.communicate(timeout=60)
        assert process.returncode == 0
    callers = [call.split()[0] for call in box.calls()]
    assert callers == sorted(callers, key=[first, second].index)
    assert box.marks == (second, second)
    assert box.links == {"emb": "tiny-embedding-1", "rerank": "tiny-reranker-2", "rerank.previous": "tiny-reranker-1"}


def test_a_run_killed_half_way_is_finished_by_the_next(box: Box) -> None:
    digest = box.assemble()
    box.tell_docker("wait", f"{digest} exec")
    process = box.start(digest)
    while not any(call.startswith(f"{digest} exec") for call in box.calls()):
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (box.state / "verified").exists()
    box.tell_docker("wait", "")
    assert box.deploy(digest)[0]["changed"] is True
    assert box.marks == (digest, digest)


def test_another_embedding_touches_no_container(box: Box) -> None:
    """It is registered with the database, and the app goes over to it: neither a candidate nor an `up` is needed."""
    first = box.assemble()
    box.deploy(first)
    for embedding in ("tiny-embedding-2", "tiny-embedding-1", "tiny-embedding-2"):
        digest, before = box.assemble(embedding=embedding), len(box.calls())
        assert box.deploy(digest, "--keep=1")[0]["changed"] is True
        calls = [call.removeprefix(f"{digest} ") for call in box.calls(before)]
        assert [call.split()[-1] for call in calls] == ["redis", "migrate", "app.selftest"], calls
        assert box.marks == (digest, digest) and box.links["emb"] == embedding
    assert (box.root / "releases" / first).is_dir(), "the containers mount a part of it"


@pytest.mark.parametrize("state", ["Up 2 hours (unhealthy)", "Exited (137) 4 seconds ago"])
def test_another_embedding_starts_containers_that_do_not_run_well(box: Box, state: str) -> None:
    box.deploy(box.assemble())
    containers = box.docker / "containers"
    containers.write_text(containers.read_text().replace("Up 5 seconds (healthy)", state, 1))
    before = len(box.calls())
    digest = box.assemble(embedding="tiny-embedding-2")
    box.deploy(digest)
    assert any("--remove-orphans" in call for call in box.calls(before))
    assert box.marks == (digest, digest)


def test_another_embedding_that_cannot_be_registered_leaves_everything(box: Box) -> None:
    old = box.assemble()
    box.deploy(old)
    links = box.links
    new, before = box.assemble(embedding="tiny-embedding-2"), len(box.calls())
    box.tell_docker("fail", f"{new} .*migrate$")
    assert f"The previous deployment {old} serves again." in box.deploy(new)[1]
    assert box.marks == (old, old) and box.links == links
    assert not any("--remove-orphans" in call for call in box.calls(before))
