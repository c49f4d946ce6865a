"""`python -m modelbuild COMMAND`: progress on stderr, one JSON line at the end of stdout.

Commands import what they need when they run: all but the stages themselves work with the standard library alone.
"""

import argparse
import importlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from host import lease
from modelbuild.activate import activate, damaged_file, rollback
from modelbuild.build import STAGES, Build, summary
from modelbuild.errors import BuildError
from modelbuild.profile import KINDS, Profile, read_profile, read_profiles
from modelbuild.progress import say
from modelbuild.prune import prune
from modelbuild.request import Request, make_request
from modelbuild.room import least_weights
from modelbuild.sandbox import Sandbox, check_seen
from modelbuild.space import known_space
from modelbuild.thresholds import read_overrides
from modelbuild.watch import Log, watch
from modelbuild.workspace import Workspace, read_json
from pipeline.errors import ModelError

EXPECTED = (BuildError, ModelError, lease.LeaseError, OSError)
NO_SPACE = "No space left on device"  # as the C library words errno 28
FULL = 1 << 18  # bytes: with less than this free, a failure is taken for the disk's
STAGE_HELP = {
    "fetch": "download or make the snapshot",
    "export": "write a float ONNX graph",
    "optimise": "fuse its attention",
    "quantise": "make it INT8 for this CPU",
    "prove": "compare with float, step back where needed",
    "release": "prepare what was proven, with its manifest",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 1 with one sentence when it did not."""
    options = _parser().parse_args(arguments)
    # For torch and its BLAS, each of which would start a thread per core and wait for the other's: on two cores,
    # Debian's torch is faster with one. onnxruntime does not read it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    report = _reserve_stdout()
    try:
        figures = options.command(options)
    except Exception as error:
        sentence = _no_space(options, error) or (str(error) if isinstance(error, EXPECTED) else None)
        if sentence is None:
            traceback.print_exc()
            sentence = (
                f"{options.stage} failed: {type(error).__name__}: {error}. The traceback is in the "
                "log. Run this again, and report it if it repeats: finished stages are kept."
            )
        print(f"error: {sentence}", file=sys.stderr)
        report({"changed": False, "error": sentence})
        return 1
    report(figures)
    return 0


def _no_space(options: argparse.Namespace, error: Exception) -> str | None:
    """A sentence if the disk is full. Some libraries say so; others, in native code, just leave half a file."""
    folders = {getattr(options, name) for name in ("models_dir", "cache_dir") if hasattr(options, name)}
    free = {folder: shutil.disk_usage(folder).free for folder in folders if folder.is_dir()}
    if NO_SPACE not in str(error) and not any(left < FULL for left in free.values()):
        return None
    where = ", ".join(f"{left / 1e6:.1f} MB free at {folder}" for folder, left in sorted(free.items()))
    return (
        f"{NO_SPACE}: {where}, and {options.stage} needs more. Free some space or enlarge the disk, then run this "
        "again: finished stages are kept."
    )


def _reserve_stdout() -> Callable[[dict[str, Any]], None]:
    """Give stdout to the JSON line alone: libraries that print, also from native code, print to stderr."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)

    def report(figures: dict[str, Any]) -> None:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)
        print(json.dumps(figures, ensure_ascii=False), flush=True)

    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modelbuild", description="Builds and proves one ONNX model.")
    commands = parser.add_subparsers(dest="stage", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], dict[str, Any]], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=run)
        return added

    plan = command("plan", _plan, "print the release ID of each profile, and whether it is there and active")
    _add_request(plan)
    for name in STAGES:
        _add_request(command(name, _stage, STAGE_HELP[name]))
    build = command("build", _build, "all stages, then publish the release")
    _add_request(build)
    _add_lock(build)
    build.add_argument("--activate", action="store_true", help="also point the kind's link at the release")
    for added in (plan, build):
        added.add_argument("--sandbox-user", help="each stage runs as this user in a systemd unit of its own")
    build.add_argument("--memory-mb", type=int, default=6000, help="memory of a sandboxed stage (default: %(default)s)")
    build.add_argument("--stage-seconds", type=int, default=7200, help="time of a sandboxed stage (%(default)s)")
    build.add_argument("--reserve-mb", type=int, default=0, help="disk that stays free (default: %(default)s)")
    build.add_argument("--log", type=Path, help="also write what is said to this file; `watch` follows it")
    follow = command("watch", _watch, "print what is new in a build's log")
    follow.add_argument("--log", type=Path, required=True)
    follow.add_argument("--seconds", type=float, default=10.0, help="wait as long for news (default: %(default)s)")
    change = command("activate", _activate, "point the kind's link at a release")
    change.add_argument("--release", required=True, metavar="ID")
    back = command("rollback", _rollback, "point the kind's link at the release that was active before")
    for added in (change, back):
        added.add_argument("--kind", choices=KINDS, required=True)
    remove = command("prune", _prune, "remove the releases that nothing names any more")
    remove.add_argument("--keep", type=int, required=True, help="releases of a kind that stay in any case")
    remove.add_argument("--recent", type=float, default=3600.0, help="seconds that a new release stays (%(default)s)")
    remove.add_argument("--in-use", action="append", default=[], metavar="ID", help="never removed; may be repeated")
    for added in (change, back, remove):
        _add_folders(added)
        _add_lock(added)
    return parser


def _add_request(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--profile", type=Path, required=True, help="JSON file that describes the model; - is standard input"
    )
    command.add_argument("--thresholds", help="overrides of the gate's thresholds: JSON, or a JSON file")
    command.add_argument(
        "--sensitivity-budget", type=float, default=120.0, help="seconds for mixed precision (default: %(default)s)"
    )
    command.add_argument("--keep-float", action="store_true", help="keep the float graph in the release")
    _add_folders(command)


def _add_folders(command: argparse.ArgumentParser) -> None:
    command.add_argument("--models-dir", type=Path, default=Path("/opt/models"), help="default: %(default)s")
    command.add_argument("--cache-dir", type=Path, default=Path("/var/cache/onebox"), help="default: %(default)s")
    command.add_argument("--state-dir", type=Path, default=Path("/var/lib/onebox"), help="default: %(default)s")


def _add_lock(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lock-wait", type=float, default=0.0, metavar="SECONDS", help="wait for another run (default: %(default)s)"
    )
    command.add_argument("--owner", default=os.environ.get("USER", "somebody"), help="who runs this, for the others")


def _workspace(options: argparse.Namespace) -> Workspace:
    return Workspace(options.models_dir.absolute(), options.cache_dir.absolute(), options.state_dir.absolute())


def _request(options: argparse.Namespace) -> Request:
    return _request_for(read_profile(options.profile), options)


def _request_for(profile: Profile, options: argparse.Namespace) -> Request:
    if profile.source["type"] == "folder" and getattr(options, "sandbox_user", None):
        check_seen(Path(profile.source["path"]), options.sandbox_user)
    return make_request(
        profile,
        read_overrides(options.thresholds),
        sensitivity_budget=options.sensitivity_budget,
        keep_float=options.keep_float,
    )


@contextmanager
def _locked(options: argparse.Namespace, tell: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Hold the lock of this VM; gives what raises if it was lost."""
    state_dir = options.state_dir.absolute()
    with lease.hold(state_dir, owner=options.owner, command=options.stage, wait=options.lock_wait, say=tell) as held:
        yield lambda: lease.check(state_dir, held)


def _plan(options: argparse.Namespace) -> dict[str, Any]:
    workspace = _workspace(options)
    requests = [_request_for(profile, options) for profile in read_profiles(options.profile)]
    return {"changed": False, "releases": [_planned(workspace, request) for request in requests]}


def _planned(workspace: Workspace, request: Request) -> dict[str, Any]:
    profile = request.profile
    there = workspace.is_released(request.id)
    damaged = damaged_file(workspace.release(request.id)) if there else None
    return {
        "id": request.id,
        "kind": profile.kind,
        "name": profile.name,
        "present": there and damaged is None,
        "damaged": damaged,
        "active": workspace.linked(profile.kind) == request.id,
        "previous": workspace.previous(profile.kind),
        "cpu_class": request.cpu.name,
        "space": known_space(profile) if profile.kind == "embedding" else None,
        "least_weights": least_weights(profile),
    }


def _stage(options: argparse.Namespace) -> dict[str, Any]:
    return run_stage(_workspace(options), _request(options), options.stage)


def run_stage(workspace: Workspace, request: Request, name: str) -> dict[str, Any]:
    """One stage of a request; one that is released has nothing left to do. `build` runs them all, and publishes."""
    folder = workspace.release(request.id)
    if workspace.is_released(request.id) and not damaged_file(folder):
        return {"changed": False, **summary(read_json(folder / "manifest.json"))}
    work = getattr(_import(name), name)
    asked = (request.profile, request.fingerprint) if name == "fetch" else (request,)
    figures: dict[str, Any] = work(workspace, *asked)
    return {"changed": figures.pop("changed"), "id": request.id, **figures}


def _build(options: argparse.Namespace) -> dict[str, Any]:
    log = Log(options.log)
    workspace, request = _workspace(options), _request(options)
    sandbox = None
    if options.sandbox_user:
        sandbox = Sandbox(options.sandbox_user, options.memory_mb, options.stage_seconds, workspace.state_dir)
    with _locked(options, log.line) as still_held:
        result = Build(
            workspace, request, _stage_arguments(options), log, sandbox, still_held, options.reserve_mb
        ).run()
        if options.activate:
            result["changed"] |= activate(workspace, request.profile.kind, request.id, still_held)["changed"]
    return result


def _stage_arguments(options: argparse.Namespace) -> list[str]:
    arguments = [
        f"--models-dir={options.models_dir.absolute()}",
        f"--cache-dir={options.cache_dir.absolute()}",
        f"--state-dir={options.state_dir.absolute()}",
        f"--sensitivity-budget={options.sensitivity_budget}",
    ]
    if options.thresholds:  # perhaps a file, which another run may write
        arguments.append(f"--thresholds={json.dumps(read_overrides(options.thresholds))}")
    return [*arguments, *(["--keep-float"] if options.keep_float else [])]


def _watch(options: argparse.Namespace) -> dict[str, Any]:
    return watch(options.log, options.seconds)


def _activate(options: argparse.Namespace) -> dict[str, Any]:
    with _locked(options, _tell) as still_held:
        return activate(_workspace(options), options.kind, options.release, still_held)


def _rollback(options: argparse.Namespace) -> dict[str, Any]:
    with _locked(options, _tell) as still_held:
        return rollback(_workspace(options), options.kind, still_held)


def _prune(options: argparse.Namespace) -> dict[str, Any]:
    with _locked(options, _tell):
        return prune(_workspace(options), options.keep, options.in_use, options.recent)


def _tell(text: str) -> None:
    say("lock", text)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(f"modelbuild.{name}")
    except ModuleNotFoundError as error:
        raise BuildError(
            f"The package {error.name} is missing in {sys.prefix}. Install modelbuild/requirements.txt into an "
            "environment that has PyTorch, and run this command with its Python."
        ) from error
