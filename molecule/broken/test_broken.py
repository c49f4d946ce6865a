"""Builds that are refused, killed, starved or found damaged: what is left, and what the operator is told."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

import outside
from outside import call, play, start, vm

# On the VM: the demo's reranker with the sign of its head turned round, so that it ranks irrelevant texts first.
TURN_ROUND = """
import pathlib, shutil, sys
import onnx
from onnx import numpy_helper
source, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
shutil.rmtree(target, ignore_errors=True)
shutil.copytree(source, target, ignore=lambda _, names: [name for name in names if name.startswith('.')])
model = onnx.load(str(target / 'model.onnx'))
graph = model.graph
logits = graph.output[0].name
last = next(node for node in graph.node if logits in node.output)
last.output[list(last.output).index(logits)] = 'right_way_round'
graph.node.append(onnx.helper.make_node('Neg', ['right_way_round'], [logits]))
onnx.save(model, str(target / 'model.onnx'))
"""
TURNED = "/var/tmp/turned-round"


def profile(max_length: int, **source: str) -> dict[str, Any]:
    return {
        "kind": "reranker",
        "source": source or {"type": "demo", "builder": "reranker"},
        "route": "prebuilt",
        "file": "model.onnx",
        "activation": "sigmoid",
        "max_length": max_length,
        "licence": "MIT",
        "languages": ["ko", "en"],
    }


def wanted(name: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"models_reranker": name, "models_extra_profiles": {name: content}}


@pytest.fixture(scope="module")
def key() -> str:
    found = outside.key()
    outside.put_document(found, "returns-ko", "상품을 받고 14일 안에 환불을 신청하면 사흘 안에 돈을 돌려드립니다.")
    return found


def state() -> str:
    """What serves, and every release that is there, with its content."""
    return vm(
        "readlink /opt/models/emb /opt/models/rerank; ls /opt/models/releases; sha256sum /opt/models/releases/*/*;"
        "docker ps --no-trunc --format '{{.ID}}'"
    )


def assert_it_answers(key: str) -> None:
    status, body = call("/search", {"query": "환불은 며칠 걸리나요?", "top_k": 1, "rerank": True}, key)
    assert status == 200 and body["results"][0]["document_id"] == "returns-ko", body


def wait_for(condition: str, seconds: float = 300) -> None:
    """Until the shell command succeeds on the VM."""
    deadline = time.monotonic() + seconds
    while vm(f"{condition} && echo yes || true") != "yes\n":
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(1)


def test_a_model_that_ranks_wrongly_is_refused_and_the_old_one_serves_on(key: str) -> None:
    vm(f"cat > /var/tmp/turn_round.py <<'END'\n{TURN_ROUND}\nEND")
    snapshot = vm("ls -d /var/cache/onebox/snapshots/*-demo-reranker").strip()
    vm(f"/opt/onebox/venv-modelbuild/bin/python /var/tmp/turn_round.py {snapshot} {TURNED}", timeout=120)
    before = state()
    code, output = play("models.yml", wanted("turned-round", profile(512, type="folder", path=TURNED)))
    assert code != 0
    assert "ranks an irrelevant text above a relevant one" in output
    assert "What served before serves on" in output
    assert state() == before
    assert_it_answers(key)


def test_a_build_beyond_its_memory_is_stopped_and_says_so(key: str) -> None:
    before = state()
    code, output = play("models.yml", wanted("starved", profile(384)) | {"models_build_memory_mb": 400})
    assert code != 0 and "models_build_memory_mb" in output
    assert state() == before
    assert_it_answers(key)


def test_a_build_on_a_full_disk_leaves_nothing_behind(key: str) -> None:
    """The real export of the embedding, with PyTorch, in a models folder that is too small for it."""
    vm("mkdir -p /mnt/small && mount -t tmpfs -o size=300m tmpfs /mnt/small")
    payload = vm("readlink -f /opt/onebox/payloads/* | head -n 1").strip()
    try:
        answer = vm(
            f"cd {payload} && /opt/onebox/venv-modelbuild/bin/python -m modelbuild build"
            " --profile=/var/lib/onebox/profiles/embedding.json --models-dir=/mnt/small --sandbox-user=onebox-build"
            " --memory-mb=6000 --stage-seconds=600 2>/var/tmp/full.log || true",
            timeout=300,
        )
        said = json.loads(answer.splitlines()[-1])
        assert "space" in said["error"].lower(), said
        assert vm("ls -A /mnt/small/releases 2>/dev/null || true") == ""
    finally:
        vm("umount /mnt/small")
    assert_it_answers(key)


def test_a_killed_play_is_finished_by_the_next_one(key: str) -> None:
    """SIGKILL of ansible-playbook while the model is being proven; a second run is told who is at work."""
    before = state()
    content = wanted("killed", profile(320))
    process = start("models.yml", content)
    wait_for("systemctl list-units --no-legend 'onebox-build-*' | grep -q running")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The build on the VM lives on: nothing else may start beside it.
    code, output = play("models.yml", content | {"models_lock_wait": 0})
    assert code != 0 and "play" in output and "holds" in output, output
    assert state() == before
    assert_it_answers(key)
    # Now its stage is killed too, and after that a run completes.
    vm("systemctl kill --signal=SIGKILL 'onebox-build-*'")
    wait_for("! systemctl list-units --no-legend 'onebox-build-*' | grep -q running")
    assert state() == before
    code, output = play("models.yml", content)
    assert code == 0
    assert call("/health", key=key)[1]["models"]["reranker"]["name"] == "killed"
    assert vm("ls -A /opt/models/.staging") == ""


def test_a_file_damaged_after_release_is_noticed_and_mended(key: str) -> None:
    model = vm("ls /opt/models/rerank/model*.onnx").strip()
    vm(f"printf damaged | dd of={model} bs=1 seek=100000 conv=notrunc status=none && docker restart onebox-app-1")
    wait_for("docker inspect -f '{{.State.Health.Status}}' onebox-app-1 | grep -qx healthy")
    health = call("/health", key=key)[1]
    assert health["status"] == "degraded" and any("reranker" in reason for reason in health["degraded"]), health
    assert_it_answers(key)
    assert play("models.yml", wanted("killed", profile(320)))[0] == 0
    deadline = time.monotonic() + 120
    while call("/health", key=key)[1]["status"] != "ok":
        assert time.monotonic() < deadline, call("/health", key=key)[1]
        time.sleep(1)


def test_builds_leave_the_machine_as_it_was() -> None:
    assert vm("systemctl list-units --all --no-legend 'onebox-build-*'") == ""
    assert vm("find / -xdev -user onebox-build -not -path '/var/cache/onebox/*' -not -path '/proc/*'") in (
        "",
        "/var/cache/onebox\n",
    )
