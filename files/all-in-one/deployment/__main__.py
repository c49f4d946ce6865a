"""Command line of `deployment`: one step a command, one JSON line on standard output."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deployment import folders, images, recap, releases, secrets
from deployment.deploy import Box, StepError, selftest
from host import lease

Result = dict[str, object]


def _prepare(arguments: argparse.Namespace) -> Result:
    given = json.load(sys.stdin)
    made = folders.ensure(arguments.root, arguments.state)
    created = secrets.ensure(arguments.state / "secrets")
    keys = secrets.write_keys(arguments.state, given)
    return {"changed": bool(made or created or keys), "folders": made, "created": created, "keys": keys}


def _tags(arguments: argparse.Namespace) -> Result:
    base = images.base_tag(arguments.suite, arguments.mirror, arguments.registry_image)
    named = images.tags(arguments.payload, base)
    missing = [name for name, tag in named.items() if not images.present(tag)]
    if arguments.registry_image and "base" in missing:
        missing.remove("base")  # the build pulls it
    return {"changed": False, "tags": named, "missing": missing}


def _image(arguments: argparse.Namespace) -> Result:
    base = images.base_tag(arguments.suite, arguments.mirror, arguments.registry_image)
    tag = images.tags(arguments.payload, base)[arguments.name]
    if images.present(tag):
        return {"changed": False, "tag": tag}
    if arguments.name == "base":
        images.build_base(tag, arguments.suite, arguments.mirror)
    else:
        images.build(arguments.name, tag, base, arguments.payload)
    return {"changed": True, "tag": tag}


@contextmanager
def _locked(arguments: argparse.Namespace, command: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of this VM; gives what raises if it was lost."""
    state, owner, wait = arguments.state, arguments.owner, arguments.lock_wait
    with lease.hold(state, owner=owner, command=command, wait=wait, say=_tell) as held:
        yield lambda: lease.check(state, held)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _assemble(arguments: argparse.Namespace) -> Result:
    # Not a file: another run would write its own there before this one has read it.
    wanted = json.load(sys.stdin)
    with _locked(arguments, "assemble"):
        name, new = releases.assemble(arguments.root, arguments.payload, wanted)
    return {"changed": new, "digest": name}


def _deploy(arguments: argparse.Namespace) -> Result:
    where = (arguments.root, arguments.state, arguments.models, arguments.patience)
    if Box(*where).is_done(arguments.digest):
        return {"changed": False}
    with _locked(arguments, "deploy") as still_held:
        box = Box(*where, still_held)
        # Another run may have done it while this one waited.
        if box.is_done(arguments.digest):
            return {"changed": False}
        box.deploy(arguments.digest)
        pruned = releases.prune(arguments.root / "releases", arguments.keep, {arguments.digest, *box.in_use()})
        pruned += releases.prune(arguments.root / "payloads", arguments.keep, {arguments.payload.name})
    return {"changed": True, "pruned": pruned}


def _verify(arguments: argparse.Namespace) -> Result:
    selftest(arguments.root / "current")
    return {
        "changed": False,
        "recap": recap.lines(arguments.root, arguments.state, arguments.models, arguments.address),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m deployment", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/opt/onebox"), help="deployments and payloads")
    parser.add_argument(
        "--state", type=Path, default=Path("/var/lib/onebox"), help="data, secrets, audit log, verified mark"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run)
        return sub

    summary = "make the folders and secrets that are missing; the operator's keys come as JSON on standard input"
    command("prepare", _prepare, summary)
    for name, run, summary in (
        ("tags", _tags, "name the images and say which are missing"),
        ("image", _image, "build one image"),
    ):
        sub = command(name, run, summary)
        sub.add_argument("--payload", type=Path, required=True)
        sub.add_argument("--suite", default="trixie")
        sub.add_argument("--mirror", default="http://deb.debian.org")
        sub.add_argument("--registry-image", default=None)
        if name == "image":
            sub.add_argument("name", choices=["base", *(image.name for image in images.IMAGES)])
    summary = "make the immutable deployment of the payload and of the files on standard input, a JSON object"
    assemble = command("assemble", _assemble, summary)
    deploy = command(
        "deploy", _deploy, "try a deployment, let it serve, and prune; put the previous one back on failure"
    )
    deploy.add_argument("--digest", required=True)
    deploy.add_argument("--models", type=Path, default=Path("/opt/models"))
    deploy.add_argument("--patience", type=int, default=180, help="seconds for containers to become healthy")
    deploy.add_argument("--keep", type=int, default=3)
    for sub in (assemble, deploy):
        sub.add_argument("--payload", type=Path, required=True)
        sub.add_argument("--lock-wait", type=float, default=0.0, help="seconds to wait for another run")
        sub.add_argument("--owner", default="somebody", help="who runs this, for the others")
    sub = command("verify", _verify, "let the box answer an embed, a rerank and a search, and say what it is")
    sub.add_argument("--models", type=Path, default=Path("/opt/models"))
    sub.add_argument("--address", required=True, help="what the box listens on, HOST:PORT")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors go to standard error as one sentence, exit code 1."""
    arguments = _parser().parse_args(argv)
    try:
        print(json.dumps(arguments.run(arguments)))
    except (releases.DeploymentError, images.ImageError, lease.LeaseError, StepError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
