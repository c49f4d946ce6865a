"""The VM's lock: one holder, who can die, be stopped, or come from before the last boot."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import host
from host import lease

PAYLOAD = Path(host.__file__).parent.parent
HOLD = """
import sys, time
from pathlib import Path
from host import lease
with lease.hold(Path(sys.argv[1]), owner="the other", command="build"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def another_holder(state_dir: Path, seconds: float = 60) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state_dir), str(seconds)], cwd=PAYLOAD, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def events(state_dir: Path) -> list[dict[str, str]]:
    log = state_dir / "audit.log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def rewrite(state_dir: Path, **changes: object) -> None:
    """What another boot, or a holder that was stopped for long, leaves behind."""
    file = state_dir / "lock"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_it_is_held_once_and_free_afterwards(tmp_path: Path) -> None:
    with lease.hold(tmp_path, owner="me", command="build") as held:
        found = lease.holder(tmp_path)
        assert found is not None and (found.owner, found.pid) == ("me", os.getpid())
        assert found.expires > time.time()
        assert held.taken == found.taken
    assert lease.holder(tmp_path) is None
    assert events(tmp_path) == []


def test_who_comes_second_is_told_who_is_first(tmp_path: Path) -> None:
    process = another_holder(tmp_path)
    try:
        with pytest.raises(lease.LeaseError, match=rf"the other \(build, process {process.pid}\) since"):
            lease.hold(tmp_path, owner="me", command="prune").__enter__()
    finally:
        process.kill()
        process.wait()


def test_who_may_wait_gets_it_as_soon_as_it_is_free(tmp_path: Path) -> None:
    process = another_holder(tmp_path, seconds=2)
    said: list[str] = []
    with lease.hold(tmp_path, owner="me", command="prune", wait=60, say=said.append):
        assert process.wait(10) == 0
    assert len(said) == 1 and said[0].startswith("waiting for the other (build, process")
    assert events(tmp_path) == []


def test_a_killed_holder_does_not_lock_the_machine(tmp_path: Path) -> None:
    process = another_holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with lease.hold(tmp_path, owner="me", command="build"):
        pass
    (entry,) = events(tmp_path)
    assert entry["event"] == "lock taken over" and entry["why"] == "its process is gone"
    assert "the other" in entry["from"]


def test_another_process_with_the_holders_number_is_not_the_holder(tmp_path: Path) -> None:
    process = another_holder(tmp_path)
    process.kill()
    process.wait()
    rewrite(tmp_path, pid=os.getpid())
    with lease.hold(tmp_path, owner="me", command="build"):
        pass
    assert events(tmp_path)[0]["why"] == "its process is gone"


@pytest.mark.parametrize(
    "changes,why", [({"boot": "another"}, "from before the last boot"), ({"expires": 1.0}, "expired")]
)
def test_a_lease_that_ran_out_or_is_of_another_boot_is_taken_over(
    tmp_path: Path, changes: dict[str, object], why: str
) -> None:
    process = another_holder(tmp_path)
    try:
        rewrite(tmp_path, **changes)
        with lease.hold(tmp_path, owner="me", command="build") as held:
            assert events(tmp_path)[0]["why"] == why
            process.terminate()
            process.wait()
            # The first one gives nothing back that is not its own.
            found = lease.holder(tmp_path)
            assert found is not None and found.taken == held.taken
    finally:
        process.kill()
        process.wait()


def test_it_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.6)
    with lease.hold(tmp_path, owner="me", command="build"):
        time.sleep(2)
        found = lease.holder(tmp_path)
        assert found is not None and found.owner == "me"


def test_what_is_no_lease_locks_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("{half")
    with lease.hold(tmp_path, owner="me", command="build"):
        assert lease.holder(tmp_path) is not None


def test_a_full_disk_ends_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock's own file system is full for longer than a lease lasts, then it is not."""
    monkeypatch.setattr(lease, "SECONDS", 0.9)
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(state_dir)], check=True)
    try:
        with lease.hold(state_dir, owner="me", command="build") as held:
            filler = state_dir / "filler"
            with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as stream:
                while stream.write(b"x" * 4096):
                    pass
            time.sleep(1.5)
            assert lease.holder(state_dir) is None, "it was renewed: the disk was not full"
            lease.check(state_dir, held)
            filler.unlink()
            time.sleep(1.5)
            found = lease.holder(state_dir)
            assert found is not None and found.taken == held.taken
    finally:
        subprocess.run(["umount", str(state_dir)], check=True)


def test_who_lost_the_lock_is_told_to_whom(tmp_path: Path) -> None:
    with lease.hold(tmp_path, owner="me", command="build") as held:
        lease.check(tmp_path, held)
        rewrite(tmp_path, boot="another")
        with (
            lease.hold(tmp_path, owner="the next", command="prune"),
            pytest.raises(lease.LeaseError, match=r"me \(build.* lost the lock.*the next \(prune"),
        ):
            lease.check(tmp_path, held)


def test_only_its_user_may_open_the_lock_and_its_guard(tmp_path: Path) -> None:
    """A build's user that could open the guard could keep everybody else waiting."""
    (tmp_path / "lock.guard").touch(0o644)
    with lease.hold(tmp_path, owner="me", command="build"):
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"lock": 0o600, "lock.guard": 0o600}
