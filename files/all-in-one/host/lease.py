"""The VM's lock: a lease file that its holder renews, so that a holder who died does not lock the VM for ever.

The file says who holds it, for people to read. It is only changed under an flock of a second file, so that two
processes never both find it free.
"""

import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from host.audit import audit

SECONDS = 60.0  # a lease lasts this long and is renewed three times as often
POLL = 1.0
PRIVATE = 0o600  # who may open the guard could keep everybody else from the lock
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LeaseError(Exception):
    """The lock is somebody else's; the message names the holder."""


@dataclass(frozen=True)
class Lease:
    """`born` is the start time of the process in clock ticks since boot: process IDs are used again. Times are Unix."""

    owner: str
    command: str
    pid: int
    born: int
    boot: str
    taken: float
    expires: float

    def __str__(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self.taken))
        return f"{self.owner} ({self.command}, process {self.pid}) since {since}"


@contextmanager
def hold(
    state_dir: Path, *, owner: str, command: str, wait: float = 0.0, say: Callable[[str], None] = lambda _: None
) -> Iterator[Lease]:
    """Hold the lock of STATE_DIR, renewing it. LeaseError if another holder keeps it for longer than `wait` seconds."""
    state_dir.mkdir(parents=True, exist_ok=True)
    lease = _acquire(state_dir, owner, command, wait, say)
    released = threading.Event()
    keeper = threading.Thread(target=_renew, args=(state_dir, lease, released), name="renew-lease", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        released.set()
        keeper.join()
        with _guarded(state_dir):
            if _same(_read(state_dir), lease):
                (state_dir / "lock").unlink()


def check(state_dir: Path, lease: Lease) -> None:
    """LeaseError unless `lease` still holds the lock: one who was stopped for long may have lost it to another."""
    found = _read(state_dir)
    if not _same(found, lease):
        now = f"{found} holds it" if found else "nobody holds it"
        raise LeaseError(
            f"{lease} lost the lock of this VM ({state_dir / 'lock'}) while at work; now {now}. Nothing more was "
            "changed; run this again."
        )


def holder(state_dir: Path) -> Lease | None:
    """Who holds the lock now; None if nobody does, or a holder that is gone."""
    found = _read(state_dir)
    return found if found and not _why_free(found) else None


def _acquire(state_dir: Path, owner: str, command: str, wait: float, say: Callable[[str], None]) -> Lease:
    deadline = time.monotonic() + wait
    told: Lease | None = None
    while True:
        with _guarded(state_dir):
            found = _read(state_dir)
            why = _why_free(found) if found else "nobody holds it"
            if why:
                if found:
                    audit(state_dir, {"event": "lock taken over", "owner": owner, "from": str(found), "why": why})
                return _write(state_dir, owner, command)
        assert found is not None
        if time.monotonic() >= deadline:
            raise LeaseError(
                f"{found} holds the lock of this VM ({state_dir / 'lock'}). Wait until that run has ended, then run "
                "this again."
            )
        if not told or not _same(told, found):
            say(f"waiting for {found}, at most {deadline - time.monotonic():.0f} s")
            told = found
        time.sleep(POLL)


def _why_free(lease: Lease) -> str:
    """Why a lease that was not given back no longer counts; empty while it does."""
    if lease.boot != _boot():
        return "from before the last boot"
    if _born(lease.pid) != lease.born:
        return "its process is gone"
    if lease.expires < time.time():
        return "expired"
    return ""


def _renew(state_dir: Path, lease: Lease, released: threading.Event) -> None:
    pause = SECONDS / 3
    while not released.wait(pause):
        try:
            with _guarded(state_dir):
                if not _same(_read(state_dir), lease):
                    return  # taken over while this process was stopped
                _replace(state_dir, lease)
            pause = SECONDS / 3
        except OSError as error:  # a full disk, say, which somebody may empty
            print(f"lock: cannot be renewed ({error}), trying again", file=sys.stderr, flush=True)
            pause = min(POLL, SECONDS / 3)


def _write(state_dir: Path, owner: str, command: str) -> Lease:
    pid = os.getpid()
    born = _born(pid)
    assert born is not None
    lease = Lease(owner, command, pid, born, _boot(), time.time(), 0.0)
    _replace(state_dir, lease)
    return lease


def _replace(state_dir: Path, lease: Lease) -> None:
    partial = state_dir / ".lock.partial"
    partial.unlink(missing_ok=True)
    partial.touch(PRIVATE)
    partial.write_text(json.dumps({**asdict(lease), "expires": time.time() + SECONDS}) + "\n", encoding="utf-8")
    partial.replace(state_dir / "lock")


def _read(state_dir: Path) -> Lease | None:
    try:
        return Lease(**json.loads((state_dir / "lock").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # what cannot be read was not written by this code to its end


def _same(left: Lease | None, right: Lease) -> bool:
    return left is not None and (left.pid, left.born, left.taken) == (right.pid, right.born, right.taken)


def _boot() -> str:
    return BOOT_ID.read_text(encoding="ascii").strip()


def _born(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None if there is no such process, or only its exit code is left of it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


@contextmanager
def _guarded(state_dir: Path) -> Iterator[None]:
    with os.fdopen(os.open(state_dir / "lock.guard", os.O_WRONLY | os.O_CREAT, PRIVATE), "w") as guard:
        # One that an earlier version made, too.
        os.fchmod(guard.fileno(), PRIVATE)
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
