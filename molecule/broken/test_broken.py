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
pytestmark = pytest.mark.timeout(1800)  # plays that build

TURNED = "/srv/turned-round"
# On the VM, as the operator's root: the command line that a stage is run with, for a probe in its place.
SANDBOXED = """
import os, pathlib, subprocess, sys
from modelbuild.sandbox import Sandbox
sandbox = Sandbox('onebox-build', 500, 60, pathlib.Path('/var/lib/onebox'))
writable = pathlib.Path('/var/cache/onebox/probe')
network = sys.argv[1] == 'network'
probe = ['/usr/bin/python3', '-c', sys.argv[2]]
done = subprocess.run(
    sandbox.command('onebox-build-probe', probe, writable=writable, network=network, environment=os.environ)
)
sys.exit(done.returncode)
"""
# What each attempt of the sandboxed user ends with.
PROBE = """
import json, os, pathlib, socket
def attempt(work):
    try:
        work()
    except OSError as error:
        return type(error).__name__
    return 'done'
def write(folder):
    return lambda: pathlib.Path(folder, 'probe-file').write_text('x')
def read(path):
    return lambda: os.listdir(path) if os.path.isdir(path) else open(path).read()
state = '/var/lib/onebox/'
print(json.dumps({
    'user': os.getuid() != 0,
    'connect': attempt(lambda: socket.create_connection((os.environ['PROBE_ADDRESS'], 22), 3).close()),
    'write own': attempt(write('/var/cache/onebox/probe')),
    **{'write ' + name: attempt(write(name)) for name in
       ('/opt/models/releases', '/opt/models', '/opt/onebox', '/var/cache/onebox', '/etc', state)},
    **{'read ' + name: attempt(read(state + name)) for name in
       ('secrets', 'secrets/api_key', 'postgres', 'lock.guard', 'hub', 'hub/token')},
    'oom': pathlib.Path('/proc/self/oom_score_adj').read_text().strip(),
}))
"""


# On the VM: the profile of the embedding that serves, with or without its size.
PROFILE = """
import json, sys
profile = json.load(open('/opt/models/emb/manifest.json'))['profile']
print(json.dumps({key: value for key, value in profile.items() if key != 'size_mb' or sys.argv[1] == 'True'}))
"""


def payload() -> str:
    return vm("readlink -f /opt/onebox/current").strip()


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
    vm(f"cat > /srv/profile.py <<'END'\n{PROFILE}\nEND")
    try:
        for with_size in (True, False):
            answer = vm(
                f"cd {payload()} && python3 /srv/profile.py {with_size} | /opt/onebox/venv-modelbuild/bin/python"
                " -m modelbuild build --profile=- --models-dir=/mnt/small --sandbox-user=onebox-build"
                " --memory-mb=6000 --stage-seconds=600 --lock-wait=60 2>/var/tmp/full.log || true",
                timeout=300,
            )
            said = json.loads(answer.splitlines()[-1])["error"]
            if with_size:
                assert "Disk: " in said and "for the stages" in said, said
                assert "started" not in vm("cat /var/tmp/full.log"), "no stage needs to start to see that"
            else:
                assert "space" in said.lower(), said
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


def test_two_plays_that_name_different_models_at_once_do_not_mix(key: str) -> None:
    """Each builds, activates and deploys its own, one after the other: one of the two serves, whole."""
    both = {name: start("models.yml", wanted(name, profile(length))) for name, length in (("one", 288), ("two", 352))}
    for name, process in both.items():
        output = process.communicate(timeout=1800)[0]
        print(output)
        assert process.returncode == 0, name
        assert "Traceback" not in output
    built = set(vm("ls /opt/models/releases").splitlines())
    assert all(any(release.startswith(f"{name}-") for release in built) for name in both)
    health = call("/health", key=key)[1]
    served = health["models"]["reranker"]
    assert health["status"] == "ok" and served["name"] in both
    assert vm("basename $(readlink /opt/models/rerank)").strip() == served["release"]
    for container in ("app", "worker"):
        named = vm(f"docker exec onebox-{container}-1 printenv RERANK_RELEASE").strip()
        assert named == served["release"], f"{container} is of another deployment"
    current = vm("basename $(readlink /opt/onebox/current)").strip()
    assert vm("cat /var/lib/onebox/verified").strip() == current
    assert f"RERANK_RELEASE={served['release']}" in vm("cat /opt/onebox/current/.env").splitlines()
    assert vm("ls -A /opt/models/.staging; ls -A /var/lib/onebox/requests; ls /var/lib/onebox/lock || true") == ""
    assert_it_answers(key)


def test_a_second_play_that_may_not_wait_says_who_is_at_work(key: str) -> None:
    first = start("models.yml", wanted("first", profile(336)))
    wait_for("systemctl list-units --no-legend 'onebox-build-*' | grep -q running")
    code, second = play("models.yml", wanted("second", profile(368)) | {"models_lock_wait": 0})
    output = first.communicate(timeout=900)[0]
    assert code != 0 and "holds the lock of this VM" in second and "(build, process" in second
    assert first.returncode == 0, output
    assert call("/health", key=key)[1]["models"]["reranker"]["name"] == "first"


def test_a_stage_has_no_network_and_sees_and_writes_only_what_is_its_own() -> None:
    """The command line of a stage, with a probe in the stage's place; fetching has network and token besides."""
    vm("install -d /var/cache/onebox/probe/tmp && chown -R onebox-build: /var/cache/onebox/probe")
    vm("install -d /var/lib/onebox/hub && install -m 0400 -o onebox-build /dev/null /var/lib/onebox/hub/token")
    for name, program in (("sandboxed", SANDBOXED), ("probe", PROBE)):
        vm(f"cat > /srv/{name}.py <<'END'\n{program}\nEND")
    address = vm("ip -4 -o route get 192.0.2.1 | grep -oP 'src \\K[0-9.]+'").strip()
    probe = f"import os; os.environ['PROBE_ADDRESS'] = '{address}'; exec(open('/srv/probe.py').read())"
    told = {}
    try:
        for network in ("none", "network"):
            answer = vm(f'cd {payload()} && PYTHONPATH=. python3 /srv/sandboxed.py {network} "{probe}"')
            told[network] = json.loads(answer.splitlines()[-1])
            print(network, told[network])
    finally:
        vm("rm -rf /var/cache/onebox/probe /var/lib/onebox/hub /srv/probe.py /srv/sandboxed.py")
    for network, said in told.items():
        assert said["user"] and said["oom"] == "1000"
        assert said["write own"] == "done"
        assert all(result != "done" for name, result in said.items() if name.startswith("write /")), said
        for name in ("secrets", "secrets/api_key", "postgres", "lock.guard"):
            assert said[f"read {name}"] != "done", (network, name)
    assert told["none"]["connect"] != "done" and told["network"]["connect"] == "done"
    assert told["none"]["read hub/token"] != "done" and told["network"]["read hub/token"] == "done"


def test_a_model_in_a_home_is_refused_before_anything_is_touched() -> None:
    code, output = play("models.yml", wanted("at-home", profile(512, type="folder", path="/root/model")))
    assert code != 0 and "Nothing was changed" in output and "below /root, which builds do not see" in output


def test_a_model_that_the_build_user_cannot_read_is_refused_by_the_plan() -> None:
    vm("install -d -m 0700 /srv/closed")
    code, output = play("models.yml", wanted("closed", profile(512, type="folder", path="/srv/closed")))
    vm("rm -rf /srv/closed")
    assert code != 0 and "cannot be read by onebox-build" in output
    assert "Start building" not in output


def test_a_file_damaged_after_release_is_noticed_and_mended(key: str) -> None:
    model = vm("ls /opt/models/rerank/model*.onnx").strip()
    vm(f"printf damaged | dd of={model} bs=1 seek=100000 conv=notrunc status=none && docker restart onebox-app-1")
    wait_for("docker inspect -f '{{.State.Health.Status}}' onebox-app-1 | grep -qx healthy")
    health = call("/health", key=key)[1]
    assert health["status"] == "degraded" and any("reranker" in reason for reason in health["degraded"]), health
    assert_it_answers(key)
    assert play("models.yml", wanted("first", profile(336)))[0] == 0
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
