"""Command line of `deployment`: one step a command, one JSON line on standard output."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from deployment import images, recap, releases, secrets

Result = dict[str, object]


def _secrets(arguments: argparse.Namespace) -> Result:
    created = secrets.ensure(arguments.state / "secrets")
    return {"changed": bool(created), "created": created}


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


def _assemble(arguments: argparse.Namespace) -> Result:
    name, new = releases.assemble(arguments.root, arguments.payload, arguments.wanted)
    return {
        "changed": new,
        "digest": name,
        "current": releases.current(arguments.root),
        "verified": releases.verified(arguments.state),
    }


def _accept(arguments: argparse.Namespace) -> Result:
    changed = releases.accept(arguments.root, arguments.state, arguments.digest)
    pruned = releases.prune(arguments.root / "releases", arguments.keep, arguments.digest)
    pruned += releases.prune(arguments.root / "payloads", arguments.keep, arguments.payload.name)
    return {"changed": changed, "pruned": pruned}


def _begin(arguments: argparse.Namespace) -> Result:
    return {"changed": releases.begin(arguments.state, arguments.digest)}


def _recap(arguments: argparse.Namespace) -> Result:
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

    command("secrets", _secrets, "create the secrets that are missing")
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
    sub = command("assemble", _assemble, "make the immutable deployment of payload and templates")
    sub.add_argument("--payload", type=Path, required=True)
    sub.add_argument("--wanted", type=Path, required=True)
    sub = command("accept", _accept, "make a deployment current and verified, and prune old ones")
    sub.add_argument("--digest", required=True)
    sub.add_argument("--payload", type=Path, required=True)
    sub.add_argument("--keep", type=int, default=3)
    sub = command("recap", _recap, "say what the box is")
    sub.add_argument("--models", type=Path, default=Path("/opt/models"))
    sub.add_argument("--address", required=True, help="what the box listens on, HOST:PORT")
    command("begin", _begin, "note that the containers are about to change").add_argument("--digest", required=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; errors go to standard error as one sentence, exit code 1."""
    arguments = _parser().parse_args(argv)
    try:
        print(json.dumps(arguments.run(arguments)))
    except (releases.DeploymentError, images.ImageError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
