"""`python -m modelbuild STAGE`: progress on stderr, one JSON line at the end of stdout.

Stages import what they need when they run: `plan` works with the standard library alone.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError
from modelbuild.profile import KINDS, read_profile
from modelbuild.request import Request, make_request
from modelbuild.thresholds import read_overrides
from modelbuild.workspace import Workspace, read_json
from pipeline.errors import ModelError

STAGES = ("fetch", "export", "optimise", "quantise", "prove", "release")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 1 with one sentence when it did not."""
    options = _parser().parse_args(arguments)
    # For torch and its BLAS, each of which would start a thread per core and wait for the other's: on two cores,
    # Debian's torch is faster with one. onnxruntime does not read it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    report = _reserve_stdout()
    try:
        figures = options.command(options)
    except (BuildError, ModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        report({"changed": False, "error": str(error)})
        return 1
    report(figures)
    return 0


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
    commands = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    helps = {
        "plan": "print the release ID and whether it is there and active",
        "fetch": "download or make the snapshot",
        "export": "write a float ONNX graph",
        "optimise": "fuse its attention",
        "quantise": "make it INT8 for this CPU",
        "prove": "compare with float, step back where needed",
        "release": "publish what was proven",
        "build": "all of the above that is not done yet",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--profile", type=Path, required=True, help="JSON file that describes the model")
        _add_folders(command)
        command.add_argument("--thresholds", help="overrides of the gate's thresholds: JSON, or a JSON file")
        command.set_defaults(command=_plan if name == "plan" else _build if name == "build" else _stage)
    commands.choices["build"].add_argument("--activate", action="store_true", help="also point the link at the release")
    command = commands.add_parser("activate", help="point the kind's link at a release")
    command.add_argument("--kind", choices=KINDS, required=True)
    command.add_argument("--release", required=True, metavar="ID")
    _add_folders(command)
    command.set_defaults(command=_activate)
    return parser


def _add_folders(command: argparse.ArgumentParser) -> None:
    command.add_argument("--models-dir", type=Path, default=Path("/opt/models"), help="default: %(default)s")
    command.add_argument("--cache-dir", type=Path, default=Path("/var/cache/onebox"), help="default: %(default)s")
    command.add_argument("--state-dir", type=Path, default=Path("/var/lib/onebox"), help="default: %(default)s")


def _workspace(options: argparse.Namespace) -> Workspace:
    return Workspace(options.models_dir.absolute(), options.cache_dir.absolute(), options.state_dir.absolute())


def _request(options: argparse.Namespace) -> Request:
    return make_request(read_profile(options.profile), read_overrides(options.thresholds))


def _plan(options: argparse.Namespace) -> dict[str, Any]:
    workspace, request = _workspace(options), _request(options)
    return {
        "changed": False,
        "id": request.id,
        "kind": request.profile.kind,
        "present": workspace.is_released(request.id),
        "active": workspace.is_active(request.profile.kind, request.id),
        "cpu_class": request.cpu.name,
    }


def _stage(options: argparse.Namespace) -> dict[str, Any]:
    return run_stage(_workspace(options), _request(options), options.stage)


def run_stage(workspace: Workspace, request: Request, name: str) -> dict[str, Any]:
    """One stage of a request; a request that is already released has nothing left to do."""
    if workspace.is_released(request.id):
        from modelbuild.release import summary  # noqa: PLC0415

        manifest = read_json(workspace.release(request.id) / "manifest.json")
        return {"changed": False, "release": str(workspace.release(request.id)), **summary(manifest)}
    work = getattr(_import(name), name)
    asked = (request.profile, request.fingerprint) if name == "fetch" else (request,)
    figures: dict[str, Any] = work(workspace, *asked)
    return {"changed": figures.pop("changed"), "id": request.id, **figures}


def _build(options: argparse.Namespace) -> dict[str, Any]:
    workspace, request = _workspace(options), _request(options)
    changed = False
    seconds: dict[str, float] = {}
    figures: dict[str, Any] = {}
    for name in STAGES:
        start = time.monotonic()
        figures = run_stage(workspace, request, name)
        changed = changed or figures["changed"]
        seconds[name] = round(time.monotonic() - start, 1)
    if options.activate:
        activation = _import("activate").activate(workspace, request.profile.kind, request.id)
        changed = changed or activation["changed"]
    return {**figures, "changed": changed, "stage_seconds": seconds}


def _activate(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = _import("activate").activate(_workspace(options), options.kind, options.release)
    return result


def _import(name: str) -> Any:
    try:
        return importlib.import_module(f"modelbuild.{name}")
    except ModuleNotFoundError as error:
        raise BuildError(
            f"The package {error.name} is missing in {sys.prefix}. Install modelbuild/requirements.txt into an "
            "environment that has PyTorch, and run this command with its Python."
        ) from error
