"""The build as an operation: killed, out of space, two at once, asked to end, watched, undone; real processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_graphs

import modelbuild
from host import lease
from modelbuild.build import STAGES
from modelbuild.sandbox import Sandbox
from modelbuild.watch import Log, watch
from pipeline import golden
from pipeline.embedder import Embedder

PAYLOAD = Path(modelbuild.__file__).parent.parent
# INT8 gains nothing on matrices this small, so neither speed nor order is what these tests are about.
LENIENT = {
    "max_time_ratio": 1e6,
    "max_versus_full_int8": 1e6,
    "embedding": {
        "min_mean_cosine": 0,
        "min_cosine": 0,
        "min_top10_overlap": 0,
        "min_language_top10_overlap": 0,
        "min_spearman": 0,
        "min_top1_agreement": 0,
    },
}


@dataclass(frozen=True)
class Machine:
    """A models folder with its cache and state, and profiles of small prebuilt models."""

    folder: Path

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def profile(self, name: str = "model", **changes: Any) -> Path:
        source = tiny_graphs.write_model(self.folder.with_name(f"source-{name}"), pooled=False)
        content = tiny_graphs.profile(
            name=name, source={"type": "folder", "path": str(source)}, route="prebuilt", file="model.onnx", **changes
        )
        file = self.folder.with_name(f"{name}.json")
        file.write_text(json.dumps(content))
        return file

    def command(self, name: str, *options: str) -> list[str]:
        folders = [f"--{which}-dir={self.folder / which}" for which in ("models", "cache", "state")]
        return [sys.executable, "-m", "modelbuild", name, *folders, *options]

    def build(self, profile: Path, *options: str) -> list[str]:
        return self.command("build", f"--profile={profile}", f"--thresholds={json.dumps(LENIENT)}", *options)

    def run(self, command: Sequence[str]) -> tuple[int, dict[str, Any]]:
        """Exit code and JSON line."""
        done = subprocess.run(command, cwd=PAYLOAD, capture_output=True, text=True, check=False, timeout=120)
        assert "Traceback" not in done.stderr, done.stderr
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return done.returncode, told

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=PAYLOAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def releases(self) -> list[str]:
        return sorted(path.name for path in self.models.glob("releases/*"))

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "state" / "audit.log").read_text().splitlines()]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    folder = tmp_path / "machine"
    folder.mkdir()
    return Machine(folder)


@pytest.fixture
def seen_machine() -> Iterator[Machine]:
    """A machine whose models lie where an unprivileged builder can see them, as temporary folders do not."""
    with tempfile.TemporaryDirectory(dir="/srv") as outer:
        Path(outer).chmod(0o755)
        folder = Path(outer) / "machine"
        folder.mkdir()
        yield Machine(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Machine]:
    """A machine on a file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=True)
    try:
        yield Machine(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def until(process: subprocess.Popen[str], line: str) -> None:
    """Read the process's progress up to a line."""
    assert process.stderr is not None
    for said in process.stderr:
        if said.startswith(line):
            return
    raise AssertionError(f"ended before it said {line!r}")


def assert_active(machine: Machine, release: str) -> None:
    """The link names the release, and it computes what it was proven with."""
    assert os.readlink(machine.models / "emb") == f"releases/{release}"
    assert golden.check(Embedder(machine.models / "emb")) > 0.999


@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_any_stage_it_leaves_what_serves_alone_and_the_next_run_completes(
    machine: Machine, stage: str
) -> None:
    _, old = machine.run(machine.build(machine.profile("old"), "--activate"))
    profile = machine.profile("new", max_length=32)
    process = machine.start(machine.build(profile, "--activate"))
    until(process, f"{stage}: started")
    # In the middle of its work, or at least of its imports.
    time.sleep(0.15)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert machine.releases() == [old["id"]]
    assert_active(machine, old["id"])
    code, new = machine.run(machine.build(profile, "--activate"))
    assert (code, new["changed"]) == (0, True)
    assert_active(machine, new["id"])
    assert machine.audit()[-2]["event"] == "lock taken over"
    assert list((machine.models / ".staging").iterdir()) == []


def test_asked_to_end_it_says_so_and_takes_its_stage_along(machine: Machine) -> None:
    profile = machine.profile()
    process = machine.start(machine.build(profile))
    until(process, "prove: started")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "asked to end (SIGTERM)" in json.loads(output)["error"]
    assert machine.releases() == []
    assert machine.run(machine.build(profile))[0] == 0


@pytest.mark.parametrize("stage", STAGES)
def test_out_of_space_in_any_stage_nothing_half_made_is_left(small_disk: Machine, stage: str) -> None:
    """Something else fills the disk as the stage starts; when it is gone, the same command completes."""
    _, old = small_disk.run(small_disk.build(small_disk.profile("old"), "--activate"))
    command = small_disk.build(small_disk.profile("new", max_length=32), "--activate")
    process, filler = small_disk.start(command), small_disk.folder / "filler"
    until(process, f"{stage}: started")
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as stream:
        while stream.write(b"x" * 4096):
            pass
    output, progress = process.communicate(timeout=60)
    told = json.loads(output)
    assert process.returncode == 1
    assert "No space left on device" in told["error"] and "Free some space" in told["error"], progress
    assert small_disk.releases() == [old["id"]]
    filler.unlink()
    assert_active(small_disk, old["id"])
    code, new = small_disk.run(command)
    assert (code, new["changed"]) == (0, True)
    assert_active(small_disk, new["id"])


def test_two_builds_of_one_model_at_once_build_it_once(machine: Machine) -> None:
    command = machine.build(machine.profile(), "--lock-wait=120")
    both = [machine.start(command) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(answer["changed"] for answer in answers) == [False, True]
    assert len({answer["id"] for answer in answers}) == 1


def test_a_second_build_that_may_not_wait_names_the_first(machine: Machine) -> None:
    first = machine.start(machine.build(machine.profile("first"), "--owner=anna@desk"))
    until(first, "fetch: started")
    code, told = machine.run(machine.build(machine.profile("second")))
    assert code == 1 and "anna@desk (build, process" in told["error"]
    first.communicate(timeout=120)
    assert first.returncode == 0


def test_two_builds_of_different_models_by_one_file_each_end_with_their_own(machine: Machine) -> None:
    """As two runs of a playbook do it: the second writes its profile where the first one's was, then waits."""
    chosen, other = machine.profile("chosen", max_length=32), machine.profile("other", max_length=48)
    command = machine.build(chosen, "--lock-wait=120", "--activate")
    first = machine.start(command)
    until(first, "fetch: started")
    shutil.copyfile(other, chosen)
    second = machine.start(command)
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], answers
    assert [answer["id"].rpartition("-")[0] for answer in answers] == ["chosen", "other"]
    assert machine.releases() == sorted(answer["id"] for answer in answers)
    assert_active(machine, answers[1]["id"])
    assert list((machine.folder / "state" / "requests").iterdir()) == []


def test_a_profile_may_come_through_standard_input(machine: Machine) -> None:
    content = machine.profile().read_text()
    command = machine.command("build", "--profile=-", f"--thresholds={json.dumps(LENIENT)}")
    done = subprocess.run(command, cwd=PAYLOAD, input=content, capture_output=True, text=True, check=False, timeout=120)
    assert machine.releases() == [json.loads(done.stdout)["id"]], done.stderr


def test_a_build_that_lost_the_lock_publishes_nothing(machine: Machine) -> None:
    """It was stopped for longer than its lease lasts, and another run took the lock over."""
    process = machine.start(machine.build(machine.profile(), "--activate"))
    until(process, "release: started")
    process.send_signal(signal.SIGSTOP)
    lock = machine.folder / "state" / "lock"
    lock.write_text(json.dumps({**json.loads(lock.read_text()), "expires": 1.0}))
    with lease.hold(machine.folder / "state", owner="the next", command="deploy"):
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=60)
    said = json.loads(output)["error"]
    assert process.returncode == 1 and "lost the lock" in said and "the next (deploy" in said
    assert machine.releases() == [] and not (machine.models / "emb").is_symlink()


def test_a_damaged_release_is_seen_by_the_plan_and_built_again(machine: Machine) -> None:
    profile = machine.profile()
    command = machine.build(profile, "--activate")
    _, built = machine.run(command)
    model = next((machine.models / "releases" / built["id"]).glob("model*.onnx"))
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 0xFF
    model.chmod(0o644)
    model.write_bytes(content)
    plan = machine.command("plan", f"--profile={profile}", f"--thresholds={json.dumps(LENIENT)}")
    (planned,) = machine.run(plan)[1]["releases"]
    assert (planned["id"], planned["present"], planned["damaged"]) == (built["id"], False, model.name)
    code, told = machine.run(machine.command("activate", "--kind=embedding", f"--release={built['id']}"))
    assert code == 1 and "damaged" in told["error"]
    assert machine.run(command)[1]["changed"] is True
    assert machine.run(plan)[1]["releases"][0]["present"] is True
    assert_active(machine, built["id"])


def test_rollback_swaps_and_swaps_back(machine: Machine) -> None:
    old, new = (
        machine.run(machine.build(machine.profile(name, max_length=length), "--activate"))[1]["id"]
        for name, length in (("old", 32), ("new", 64))
    )
    back = machine.command("rollback", "--kind=embedding", "--owner=anna")
    assert machine.run(back) == (0, {"changed": True, "id": old, "previous": new})
    assert_active(machine, old)
    assert os.readlink(machine.models / "emb.previous") == f"releases/{new}"
    assert machine.audit()[-1]["event"] == "rollback"
    assert machine.run(back)[1]["id"] == new


def test_there_is_nothing_to_roll_back_to_at_first(machine: Machine) -> None:
    machine.run(machine.build(machine.profile(), "--activate"))
    code, told = machine.run(machine.command("rollback", "--kind=embedding"))
    assert code == 1 and "There is no previous embedding" in told["error"] and "models.yml" in told["error"]


def test_pruning_spares_what_is_named_and_the_newest(machine: Machine) -> None:
    built = [
        machine.run(machine.build(machine.profile(f"m{length}", max_length=length), *options))[1]["id"]
        for length, options in ((16, []), (24, ["--activate"]), (32, ["--activate"]), (40, []), (48, []))
    ]
    in_use, previous, active, unnamed, newest = built
    (machine.models / ".staging" / "left-over").mkdir()
    code, told = machine.run(machine.command("prune", "--recent=0", "--keep=4", f"--in-use={in_use}"))
    assert code == 0 and told["removed"] == [unnamed]
    assert machine.releases() == sorted([in_use, previous, active, newest])
    assert list((machine.models / ".staging").iterdir()) == []
    assert machine.run(machine.command("prune", "--recent=0", "--keep=0"))[1]["removed"] == [newest, in_use]
    assert machine.releases() == sorted([previous, active])
    assert machine.run(machine.command("prune", "--recent=0", "--keep=0"))[1]["changed"] is False
    assert [entry["release"] for entry in machine.audit() if entry["event"] == "prune"] == [unnamed, newest, in_use]


def test_pruning_spares_what_another_run_has_just_built(machine: Machine) -> None:
    built = machine.run(machine.build(machine.profile()))[1]["id"]
    assert machine.run(machine.command("prune", "--keep=0"))[1]["kept"] == [built]
    manifest = machine.models / "releases" / built / "manifest.json"
    os.utime(manifest, (time.time() - 4000,) * 2)
    assert machine.run(machine.command("prune", "--keep=0"))[1]["removed"] == [built]


def test_a_build_is_followed_to_its_end(machine: Machine, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "build.log"
    process = machine.start(machine.build(machine.profile(), f"--log={log}"))
    lines: list[str] = []
    answers = 0
    while True:
        _, told = machine.run([sys.executable, "-m", "modelbuild", "watch", f"--log={log}", "--seconds=5"])
        lines += told["lines"]
        answers += 1
        if told["finished"]:
            break
    process.communicate(timeout=60)
    assert answers > 1
    assert [line for line in lines if line.endswith(": started")] == [f"{stage}: started" for stage in STAGES]
    assert lines == log.read_text().splitlines()


def test_the_end_of_a_killed_build_is_seen_too(machine: Machine, tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    process = machine.start(machine.build(machine.profile(), f"--log={log}"))
    until(process, "fetch: started")
    process.kill()
    process.wait()
    assert watch(log, 5)["lines"][0] == "fetch: started"
    assert watch(log, 5) == {"changed": False, "lines": [], "finished": True}


def test_only_the_last_logs_are_kept(tmp_path: Path) -> None:
    for number in range(14):
        Log(tmp_path / f"{number:02d}.log").line("something")
    assert len(list(tmp_path.glob("*.log"))) == 10
    assert (tmp_path / "13.log").is_file()


def sandboxed(tmp_path: Path, *, network: bool) -> list[str]:
    environment = {"HF_TOKEN_PATH": "/run/token", "HF_ENDPOINT": "https://hub", "AWS_SECRET": "never"}
    return Sandbox("builder", 1234, 60, tmp_path).command(
        "onebox-build-embedding",
        ["python", "-m", "modelbuild", "export"],
        writable=tmp_path / "staging",
        network=network,
        environment=environment,
    )


def test_what_nobody_foresaw_is_told_in_a_sentence_with_its_traceback_in_the_log(machine: Machine) -> None:
    profile = machine.profile()
    folder = machine.folder.with_name("source-model")
    (folder / "config.json").write_text("no JSON")
    done = subprocess.run(machine.build(profile), cwd=PAYLOAD, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    assert done.returncode == 1 and told["changed"] is False
    assert re.match(r"\w+ failed: \w+: .*The traceback is in the log", told["error"]), told
    assert "Traceback" in done.stderr and "memory" not in told["error"]


@pytest.fixture
def systemd_that_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A systemd whose units end without a word, and which then gives this result once, until the unit is reset."""

    def say(result: str) -> None:
        tools = tmp_path / "tools"
        tools.mkdir()
        state = f"LoadState=loaded\\nResult={result}" if result else "LoadState=not-found"
        (tools / "systemd-run").write_text(f"#!/bin/sh\ntouch {tools}/failed\nexit 9\n")
        (tools / "systemctl").write_text(
            f"#!/bin/sh\ncase $1 in show) [ -e {tools}/failed ] && printf '{state}\\n';; "
            f"reset-failed) rm -f {tools}/failed;; esac\n"
        )
        for tool in tools.iterdir():
            tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    return say


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("oom-kill", "it needed more than 123 MB of memory. Raise models_build_memory_mb"),
        ("timeout", "it needed more than 45 s. Raise models_build_seconds"),
        ("signal", "it ended by signal and said nothing. Read `journalctl"),
        ("", "it ended by unknown and said nothing"),
    ],
)
def test_a_stage_that_could_not_say_why_it_ended_is_explained_by_systemd(
    seen_machine: Machine, systemd_that_says: Callable[[str], None], tmp_path: Path, result: str, said: str
) -> None:
    systemd_that_says(result)
    options = ("--sandbox-user=nobody", "--memory-mb=123", "--stage-seconds=45")
    code, told = seen_machine.run(seen_machine.build(seen_machine.profile(), *options))
    assert code == 1 and said in told["error"], told
    assert ("models_build" in told["error"]) == (result in ("oom-kill", "timeout"))
    assert not (tmp_path / "tools" / "failed").exists()


def test_a_stage_gets_no_more_than_it_needs(tmp_path: Path) -> None:
    command = sandboxed(tmp_path, network=False)
    properties = {part.removeprefix("--property=") for part in command if part.startswith("--property=")}
    assert properties >= {
        "User=builder",
        "PrivateNetwork=yes",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        f"ReadWritePaths={tmp_path / 'staging'}",
        "MemoryMax=1234M",
        "MemorySwapMax=0",
        "RuntimeMaxSec=60",
        "OOMScoreAdjust=1000",
    }
    (hidden,) = (name.split("=")[1].split() for name in properties if name.startswith("InaccessiblePaths="))
    assert set(hidden) == {f"-{tmp_path / name}" for name in ("secrets", "postgres", "lock.guard", "hub")}
    assert "--setenv=HF_ENDPOINT" in command and "--setenv=HF_TOKEN_PATH" not in command
    assert not any("AWS_SECRET" in part for part in command)
    assert command[-4:] == ["python", "-m", "modelbuild", "export"]


def test_fetching_alone_has_the_network_and_the_token_by_name_only(tmp_path: Path) -> None:
    command = sandboxed(tmp_path, network=True)
    assert "--property=PrivateNetwork=no" in command and "--setenv=HF_TOKEN_PATH" in command
    assert not any("/run/token" in part for part in command)
    assert not any(str(tmp_path / "hub") in part for part in command), "fetching reads the token in there"
