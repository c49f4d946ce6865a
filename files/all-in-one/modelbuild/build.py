"""build: from a profile to a release, each stage in a process of its own, under the VM's lock."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelbuild.activate import damaged_file
from modelbuild.errors import BuildError
from modelbuild.publish import LISTABLE, READABLE, publish
from modelbuild.request import Request
from modelbuild.room import check_room
from modelbuild.sandbox import Sandbox, stop_unit, unit_result, why_ended
from modelbuild.watch import Log
from modelbuild.workspace import Workspace, make_folder, read_json, write_json

STAGES = ("fetch", "export", "optimise", "quantise", "prove", "release")
QUIET = 10.0  # seconds without a word after which the builder says that it is still there


@dataclass(frozen=True)
class Build:
    """One run of all stages; no sandbox means this very user.

    `arguments` are the options that each stage takes beside the profile. `still_held` raises if the lock was lost.
    `reserve_mb` of disk stay free for the database.
    """

    workspace: Workspace
    request: Request
    arguments: Sequence[str]
    log: Log
    sandbox: Sandbox | None = None
    still_held: Callable[[], None] = lambda: None
    reserve_mb: int = 0

    @property
    def unit(self) -> str:
        return f"onebox-build-{self.request.profile.kind}"

    def run(self) -> dict[str, Any]:
        """{"changed", "id", "stage_seconds", "peak_mb", "cost", …summary of the release}; call it under the lock."""
        folder = self.workspace.release(self.request.id)
        if self.workspace.is_released(self.request.id) and not damaged_file(folder):
            return {"changed": False, **summary(read_json(folder / "manifest.json"))}
        seconds: dict[str, float] = {}
        peaks: list[int] = []
        with _ending_in_words():
            self._prepare()
            check_room(self.workspace, self.request, self.reserve_mb)
            for name in STAGES:
                start = time.monotonic()
                told = self._stage(name)
                seconds[name] = round(time.monotonic() - start, 1)
                peaks.append(int(told.get("peak_mb") or 0))
        manifest = publish(self.workspace, self.request.id, self.still_held)
        self.workspace.frozen_profile(self.request.id).unlink()
        cost = {"stage_seconds": seconds, "peak_mb": max(peaks), "cost": cost_line(seconds, max(peaks))}
        return {"changed": True, **cost, **summary(manifest)}

    def _prepare(self) -> None:
        """Nobody else builds now: what lies in staging for another request was left by a run that did not end."""
        if self.sandbox:
            stop_unit(self.unit)
        staging = self.workspace.staging(self.request.id)
        for folder in self.workspace.models_dir.glob(".staging/*"):
            if folder != staging:
                shutil.rmtree(folder)
        make_folder(staging)
        make_folder(self.workspace.cache_dir)
        self._freeze_profile()
        if self.sandbox:
            for folder in (staging, self.workspace.cache_dir):
                (folder / "tmp").mkdir(exist_ok=True)
                # All of it: an earlier build may have run as another user.
                give(folder, self.sandbox.user)
            staging.chmod(0o750)

    def _freeze_profile(self) -> None:
        """Keep what was asked for under the request's name: another run may write the file that it was read from."""
        file = self.workspace.frozen_profile(self.request.id)
        shutil.rmtree(file.parent, ignore_errors=True)
        make_folder(file.parent)
        write_json(file, self.request.profile.raw)
        # Read by the build's user, whatever the umask is; written by this one alone.
        file.parent.chmod(LISTABLE)
        file.chmod(READABLE)

    def _stage(self, name: str) -> dict[str, Any]:
        """Run one stage to its end; its JSON line. BuildError with its sentence, or with what stopped it."""
        self.log.line(f"{name}: started")
        process = subprocess.Popen(
            self._command(name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        with self._stopped_with_us(process), self._followed(process, name):
            assert process.stdout is not None
            lines = process.stdout.read().splitlines()
            code = process.wait()
        told = _answer(lines)
        if code == 0 and told is not None:
            return told
        why = str((told or {}).get("error") or self._why_stopped(name, code))
        if self.sandbox:
            stop_unit(self.unit)  # a failed unit keeps its name, for its result to be asked
        raise BuildError(why)

    def _command(self, name: str) -> list[str]:
        profile = f"--profile={self.workspace.frozen_profile(self.request.id)}"
        arguments = [sys.executable, "-m", "modelbuild", name, profile, *self.arguments]
        if not self.sandbox:
            # Dies with this process. (So does systemd-run; its unit is stopped by the next build.)
            return ["setpriv", "--pdeathsig=KILL", *arguments]
        fetching = name == "fetch"
        writable = self.workspace.cache_dir if fetching else self.workspace.staging(self.request.id)
        return self.sandbox.command(self.unit, arguments, writable=writable, network=fetching, environment=os.environ)

    def _why_stopped(self, name: str, code: int) -> str:
        """What ended a stage that could not say so itself."""
        if self.sandbox:
            return why_ended(name, code, unit_result(self.unit), self.sandbox, self.unit)
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"The stage {name} was stopped ({reason}). Run this again: finished stages are kept."

    @contextmanager
    def _followed(self, process: subprocess.Popen[str], name: str) -> Iterator[None]:
        """Hand on what the stage says, and say that it is alive when it says nothing."""
        start, ended = time.monotonic(), threading.Event()

        def hand_on() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                self.log.line(line.rstrip("\n"))

        def stay_in_touch() -> None:
            while not ended.wait(1):
                if time.monotonic() - self.log.last >= QUIET:
                    elapsed = time.monotonic() - start
                    self.log.line(f"{name}: at work for {elapsed:.0f} s, {self._bytes(name) / 1e6:.0f} MB on disk")

        threads = [threading.Thread(target=work, daemon=True) for work in (hand_on, stay_in_touch)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    @contextmanager
    def _stopped_with_us(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """Whatever ends this build ends its stage."""
        try:
            yield
        finally:
            if process.poll() is None:
                if self.sandbox:
                    stop_unit(self.unit)
                process.kill()
                process.wait()

    def _bytes(self, name: str) -> int:
        fetching = name == "fetch"
        folder = self.workspace.snapshots if fetching else self.workspace.staging(self.request.id)
        return sum(_size(path) for path in folder.rglob("*"))


@contextmanager
def _ending_in_words() -> Iterator[None]:
    """SIGTERM and SIGINT become a BuildError."""

    def end(number: int, frame: object) -> None:
        raise BuildError(f"The build was asked to end ({signal.Signals(number).name}). Run it again: it goes on.")

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def give(folder: Path, user: str) -> None:
    """Make `user` the owner of the folder and all that is in it; links are not followed."""
    account = pwd.getpwnam(user)
    for path in (folder, *folder.rglob("*")):
        if path.lstat().st_uid != account.pw_uid:
            os.lchown(path, account.pw_uid, account.pw_gid)


def cost_line(seconds: Mapping[str, float], peak_mb: int) -> str:
    """What a build took, for a recap."""
    stages = ", ".join(f"{name} {taken:.0f} s" for name, taken in seconds.items())
    return f"built in {sum(seconds.values()):.0f} s, peak {peak_mb} MB ({stages})"


def summary(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a recap says about a release."""
    return {
        "id": manifest["id"],
        "recipe": manifest["recipe"]["name"],
        "reason": manifest["recipe"]["reason"],
        "gate": manifest["gate"],
        "sizes": manifest["sizes"],
        "speed": manifest["speed"],
    }


def _answer(lines: Sequence[str]) -> dict[str, Any] | None:
    try:
        told = json.loads(lines[-1])
    except (IndexError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # a temporary file, gone by now
