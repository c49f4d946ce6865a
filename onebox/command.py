"""The command `onebox`: reads its arguments, does what they say, and exits with 0, 1 (not all of it), or 2 (no)."""

import argparse
import codecs
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from onebox import files
from onebox.client import DEFAULT_URL, Box, OneboxError
from onebox.formats import Reading, read
from onebox.ingesting import Outcome, ingestion
from onebox.progress import Progress
from onebox.records import Document, Fields
from onebox.results import show

INGEST_PERSEVERE_S = 600.0
COMPARISONS = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}


def main(argv: list[str] | None = None) -> int:
    """The exit status. OneboxError says why nothing could be done."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    return command(arguments)


def run(program: Callable[[], int] = main) -> NoReturn:
    """Runs a program and exits: 0 or 1 as it says, 2 with one sentence when the box did not do as asked."""
    try:
        sys.exit(program())
    except OneboxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        print("stopped; what was sent stays in the box, and running this again goes on from there", file=sys.stderr)
        sys.exit(130)


def add_box_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        default=os.environ.get("ONEBOX_URL") or DEFAULT_URL,
        help=f"address of the box (default: ONEBOX_URL, otherwise {DEFAULT_URL})",
    )
    parser.add_argument(
        "--key-file",
        type=Path,
        default=os.environ.get("ONEBOX_KEY_FILE") or None,
        metavar="FILE",
        help="file that holds the API key (default: ONEBOX_KEY_FILE; without one the key in ONEBOX_KEY, if any)",
    )


def box_of(arguments: argparse.Namespace, **options: Any) -> Box:
    key = read_key(Path(arguments.key_file)) if arguments.key_file else os.environ.get("ONEBOX_KEY") or None
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        where = f"--key-file {arguments.key_file}" if arguments.key_file else "ONEBOX_KEY"
        raise OneboxError(f"{where} holds no API key: a key is one word of ASCII characters")
    return Box(arguments.url, key, **options)


def read_key(path: Path) -> str:
    """The first key of a file: during a rotation there are several, one a line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OneboxError(
            f"--key-file {path} cannot be read ({reason}): copy the key from the box, mode 0600"
        ) from None
    if not lines[0].strip():
        raise OneboxError(f"--key-file {path} is empty: it has to hold the API key of the box")
    return lines[0].strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="onebox", description="Fill a onebox with documents and search in it.")
    parser.add_argument("--version", action="version", version=f"onebox {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_ingest, _add_search, _add_status, _add_job, _add_parked, _add_requeue):
        add(commands)
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("onebox")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _add_ingest(commands: Any) -> None:
    parser = commands.add_parser(
        "ingest",
        help="files and folders into the box",
        description=f"Put files ({', '.join(files.SUFFIXES)}) and the folders that hold them into the box, and wait "
        "until they can be found. The same again costs nothing; what has changed replaces what was there.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--format", choices=files.FORMATS, help="what the files hold, where their names do not say it")
    parser.add_argument(
        "--root", type=Path, metavar="FOLDER", help="ids are paths below it (default: the folder that holds PATH)"
    )
    parser.add_argument("--encoding", type=_encoding, help="of text, CSV and HTML files that are not UTF-8, say cp949")
    parser.add_argument("--delimiter", type=_delimiter, default=",", help="between the columns of CSV (default: comma)")
    parser.add_argument(
        "--text-field", action="append", metavar="FIELD", help="of records; several times: all of them, in this order"
    )
    parser.add_argument("--title-field", metavar="FIELD")
    parser.add_argument("--id-field", metavar="FIELD")
    parser.add_argument(
        "--metadata", action="append", default=[], type=_assignment, metavar="NAME=VALUE",
        help="for every document; VALUE is JSON where it can be, otherwise a text",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the documents as lines of JSON, send nothing")
    parser.add_argument("--no-wait", action="store_true", help="leave once everything is sent; the box goes on")
    parser.add_argument(
        "--patience", type=float, default=600, metavar="SECONDS",
        help="give up when nothing is indexed for so long (default: %(default)s)",
    )  # fmt: skip
    add_box_arguments(parser)
    parser.set_defaults(command=_ingest)


def _ingest(arguments: argparse.Namespace) -> int:
    found = files.find(arguments.paths, root=arguments.root, format=arguments.format)
    errors = Console(stderr=True)
    if found.others:
        left_out = ", ".join(f"{count} {suffix}" for suffix, count in sorted(found.others.items()))
        errors.print(f"left out, being of another kind: {left_out}", highlight=False, markup=False)
    if not found.files:
        raise OneboxError(f"nothing to ingest at {', '.join(map(str, arguments.paths))}")
    fields = Fields(arguments.text_field, arguments.title_field, arguments.id_field)
    reading = Reading(fields, arguments.encoding, arguments.delimiter)
    metadata = dict(arguments.metadata)
    if arguments.dry_run:
        return _print_documents(found, reading, metadata)
    box = box_of(arguments, persevere_s=INGEST_PERSEVERE_S)
    with ingestion(box, Progress(sum(file.size for file in found.files), errors), metadata) as run:
        run.send(found.files, reading)
        if not arguments.no_wait:
            run.wait(arguments.patience)
    print(_summary(run.outcome, waited=not arguments.no_wait))
    return 1 if run.outcome.refused or run.outcome.failed else 0


def _print_documents(found: files.Found, reading: Reading, metadata: dict[str, Any]) -> int:
    problems = 0
    for file in found.files:
        for entry in read(file, reading):
            if isinstance(entry, Document):
                print(entry.line(metadata).decode())
            else:
                problems += 1
                print(f"{entry.origin}: {entry.reason}", file=sys.stderr)
    return 1 if problems else 0


def _summary(outcome: Outcome, *, waited: bool) -> str:
    parts = []
    if waited:
        changed = outcome.sent - outcome.unchanged - outcome.failed
        parts += [f"{outcome.sent - outcome.failed:,} documents in the box"]
        parts += [f"{changed:,} new or changed" if changed else "nothing changed"]
    else:
        jobs = f"; the last job is {outcome.jobs[-1]}" if outcome.jobs else ""
        parts += [f"{outcome.sent:,} documents sent{jobs}"]
    if outcome.failed:
        parts += [f"{outcome.failed:,} given up"]
    if outcome.refused:
        parts += [f"{outcome.refused:,} refused"]
    return ", ".join(parts)


def _add_search(commands: Any) -> None:
    parser = commands.add_parser("search", help="ask the box", description="Ask the box, and print its best answers.")
    parser.add_argument("query", nargs="+", metavar="QUERY", help="the words of one question")
    parser.add_argument("--top-k", type=int, default=3, metavar="N", help="how many results (default: %(default)s)")
    parser.add_argument(
        "--filter", action="append", default=[], type=_condition, metavar="CONDITION",
        help="on metadata: NAME=VALUE, NAME>=VALUE and so on; all must hold, of several NAME=VALUE for one name any",
    )  # fmt: skip
    parser.add_argument("--rerank", choices=("off", "auto", "always", "shadow"), help="whether the reranker judges")
    parser.add_argument("--fusion", choices=("hybrid", "vectors", "words"), help="what is compared")
    parser.add_argument("--json", action="store_true", help="print the box's answer as it is")
    parser.add_argument("--expect", metavar="ID", help="exit 1 unless this document comes first")
    add_box_arguments(parser)
    parser.set_defaults(command=_search)


def _search(arguments: argparse.Namespace) -> int:
    query = " ".join(arguments.query)
    options: dict[str, Any] = {"top_k": arguments.top_k, "filter": _filters(arguments.filter)}
    options |= {name: value for name in ("rerank", "fusion") if (value := getattr(arguments, name))}
    box = box_of(arguments)
    raw = box.ask(query, **options)
    answer = box.read_answer(raw)
    if arguments.json:
        print(json.dumps(raw, ensure_ascii=False, indent=2))
    else:
        console = Console(highlight=False)
        console.print(query, style="bold", markup=False)
        show(answer, console)
    if not arguments.expect:
        return 0
    found = [result.document_id for result in answer.results]
    if found[:1] == [arguments.expect]:
        return 0
    place = f"it came {found.index(arguments.expect) + 1}." if arguments.expect in found else "it is not among these"
    first = found[0] if found else "nothing"
    print(f"error: {query!r}: expected {arguments.expect} first, found {first}; {place}", file=sys.stderr)
    return 1


def _add_status(commands: Any) -> None:
    parser = commands.add_parser(
        "status",
        help="how the box is",
        description="Print what serves, how many documents there are and what waits. Exit 1 unless the box is ok.",
    )
    add_box_arguments(parser)
    parser.set_defaults(command=_status)


def _status(arguments: argparse.Namespace) -> int:
    health = box_of(arguments).health()
    print(f"status      {health['status']}")
    for reason in health.get("degraded") or []:
        print(f"            {reason}")
    for kind, model in (health.get("models") or {}).items():
        print(f"{kind:<11} {f'{model["name"]}, release {model["release"]}' if model else 'none'}")
    if isinstance(health.get("documents"), int):
        print(f"documents   {health['documents']:,}")
    if queue := health.get("queue"):
        print(f"queue       {queue['queued']:,} queued, {queue['running']:,} running, {queue['parked']:,} parked")
    return 0 if health["status"] == "ok" else 1


def _add_job(commands: Any) -> None:
    parser = commands.add_parser(
        "job", help="how far an ingestion is", description="Print how far a job is. Exit 1 if some of it was given up."
    )
    parser.add_argument("id", metavar="JOB")
    add_box_arguments(parser)
    parser.set_defaults(command=_job)


def _job(arguments: argparse.Namespace) -> int:
    job = box_of(arguments).job(arguments.id)
    print(f"{job.status}: {job.done:,} of {job.documents:,} documents, {job.unchanged:,} of them unchanged")
    for identity, reason in job.failures.items():
        print(f"{identity}: {reason}")
    return 1 if job.status == "failed" else 0


def _add_parked(commands: Any) -> None:
    parser = commands.add_parser(
        "parked",
        help="documents that were given up",
        description="Print each document that the worker gave up, with the reason. Exit 1 if there is one.",
    )
    add_box_arguments(parser)
    parser.set_defaults(command=_parked)


def _parked(arguments: argparse.Namespace) -> int:
    items = box_of(arguments).parked()
    for item in items:
        print(f"{item['document']}: {item['reason']}")
    return 1 if items else 0


def _add_requeue(commands: Any) -> None:
    parser = commands.add_parser(
        "requeue", help="try documents again that were given up", description="Have given-up documents tried again."
    )
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("--all", action="store_true", help="every one, instead of those named")
    add_box_arguments(parser)
    parser.set_defaults(command=_requeue)


def _requeue(arguments: argparse.Namespace) -> int:
    if arguments.all == bool(arguments.ids):
        raise OneboxError("name the documents to try again, or give --all: `onebox parked` lists them")
    requeued = box_of(arguments).requeue(None if arguments.all else arguments.ids)
    print(f"{requeued:,} tried again")
    return 0 if requeued or arguments.all else 1


def _assignment(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, _value(value)


def _condition(text: str) -> tuple[str, str, Any]:
    """(field, "" or the name of the comparison, value)."""
    place = min((place for sign in "<>=" if (place := text.find(sign)) > 0), default=0)
    sign = next((sign for sign in (">=", "<=", ">", "<", "=") if text.startswith(sign, place)), "")
    if not place or not sign:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=VALUE, NAME>=VALUE, NAME<=VALUE, NAME>VALUE or NAME<VALUE"
        )
    return text[:place], COMPARISONS.get(sign, ""), _value(text[place + len(sign) :])


def _filters(conditions: list[tuple[str, str, Any]]) -> dict[str, Any]:
    """POST /search's `filter`."""
    filters: dict[str, Any] = {}
    for name, comparison, value in conditions:
        wanted = filters.setdefault(name, {} if comparison else [])
        if isinstance(wanted, list) == bool(comparison):
            raise OneboxError(f"--filter {name}: it is either equal to something or between bounds, not both")
        if comparison:
            wanted[comparison] = value
        else:
            wanted.append(value)
    return filters


def _value(text: str) -> Any:
    """A number, true, false, null or a text in quotes as JSON has them; otherwise the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, dict | list) else value


def _encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise argparse.ArgumentTypeError(f"{name!r} is no encoding: utf-8, cp949, utf-16 are some") from None


def _delimiter(text: str) -> str:
    delimiter = "\t" if text in ("\\t", "tab") else text
    if len(delimiter) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character (tab is one)")
    return delimiter
