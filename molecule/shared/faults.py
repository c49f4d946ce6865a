"""Ways to break the running box for real, and to wait until it is whole again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from outside import Answer, ask, eventually, sql, vm

NETWORK, POSTGRES_DATA = "onebox_default", "/var/lib/onebox/postgres"
SPARE_MB = 64  # of the small file system, beside what the database holds
ROOM_KB = 128  # left on the full disk: too little for a document, enough for the small files of a checkpoint


def reachable(path: str, key: str | None = None) -> Answer | None:
    """The answer, None while nobody listens."""
    try:
        return ask(path, key=key)
    except OSError:
        return None


def is_ready() -> bool:
    answer = reachable("/readyz")
    return answer is not None and answer.status == 200


def is_well(key: str) -> bool:
    answer = reachable("/health", key)
    return answer is not None and answer.body["status"] == "ok"


@contextmanager
def meanwhile(do: str, undo: str) -> Iterator[None]:
    """One command on the VM, and afterwards, whatever happened, the one that takes it back."""
    vm(do)
    try:
        yield
    finally:
        vm(undo)


def stopped() -> AbstractContextManager[None]:
    """Postgres shut down."""
    return meanwhile("docker stop onebox-postgres-1", "docker start onebox-postgres-1")


def cut_off() -> AbstractContextManager[None]:
    """Postgres at work, and no packet from or to it: not even a refusal."""
    return meanwhile(
        f"docker network disconnect {NETWORK} onebox-postgres-1",
        f"docker network connect --alias postgres {NETWORK} onebox-postgres-1",
    )


def paused() -> AbstractContextManager[None]:
    """Postgres takes connections and statements and answers nothing, as where its disk hangs."""
    return meanwhile("docker pause onebox-postgres-1", "docker unpause onebox-postgres-1")


@contextmanager
def small_disk() -> Iterator[None]:
    """The database on a file system of its own, a little larger than it is; afterwards the state of before is back.

    It has written by then what it writes for its first connection, without which a full disk takes none.
    """
    small = "/mnt/onebox-small"
    vm("docker stop onebox-postgres-1")
    used = int(vm(f"du -sm {POSTGRES_DATA}").split()[0])
    vm(f"mkdir -p {small} && mount -t tmpfs -o size={used + SPARE_MB}m tmpfs {small}")
    vm(f"cp -a {POSTGRES_DATA}/. {small}/ && chown 10002:10002 {small} && chmod 700 {small}")
    vm(f"mount --bind {small} {POSTGRES_DATA} && docker start onebox-postgres-1")
    try:
        eventually(is_ready)
        sql("CHECKPOINT")
        yield
    finally:
        vm(f"docker stop onebox-postgres-1; umount {POSTGRES_DATA} {small}; docker start onebox-postgres-1")
        eventually(is_ready)


def fill() -> None:
    """Leave as good as no room beside the database."""
    vm(
        f"room=$(df --output=avail -k {POSTGRES_DATA} | tail -1) &&"
        f" head -c $(( (room - {ROOM_KB}) * 1024 )) /dev/zero > {POSTGRES_DATA}/ballast"
    )
