"""Commands on the database; each prints one JSON line, an error as one sentence on standard error (exit code 1).

migrate: the schema, then the generation that the wanted embedding model (EMBED_RELEASE) needs: at once, or built by
    the worker and switched to by the app. {changed, revision, release, generation: what was done, generations}.
generations: {changed, serving, next, kept}; what they hold is told by store/switching.py::status. While next is not
    null and its state not refused, the box is on its way there; then serving is what was wanted last.
watch: waits at most --seconds for the box to get there. {changed, finished, refused, lines: how far it is, in words}.
fits: {changed, fits, documents, second, why, counted}: whether disk and memory allow the index of an embedding;
    `second` is false where no second generation is needed. Exit code 3 and the reason when they do not.
drop: [ID ...] of generations, none means all kept ones; {changed, dropped}. The one that serves is refused.
retry: a refused generation is built on and judged again. {changed, generation}.
releases: the model releases that generations need. {changed, releases}.
requeue: what was given up, or the named documents of it, is tried again. {changed, requeued}.

STORE_KEEP_GENERATIONS (1) is how many generations that have served are kept to go back to.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import psycopg

from store import fitting, generations, jobs, switching, wanted
from store.connection import connect, conninfo
from store.errors import StoreError
from store.generations import Index
from store.migrate import migrate, wait_for_database
from text import analyser, chunker

WAIT_SECONDS = 60.0
REFUSED = 3


def main() -> int:
    options = _parser().parse_args()
    try:
        result, code = options.run(options)
    except (StoreError, psycopg.Error) as error:
        print(f"store {options.command}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return int(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m store", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate").set_defaults(run=_migrate)
    commands.add_parser("generations").set_defaults(run=_generations)
    watch = commands.add_parser("watch")
    watch.set_defaults(run=_watch)
    watch.add_argument("--seconds", type=float, default=10.0, help="at most; 0 looks once (default: %(default)s)")
    fits = commands.add_parser("fits")
    fits.set_defaults(run=_fits)
    which = fits.add_mutually_exclusive_group(required=True)
    which.add_argument("--release", help="ID of a release in the models folder")
    which.add_argument("--space", type=json.loads, help="JSON object; null where a value is not known yet")
    fits.add_argument("--weights", type=int, metavar="BYTES", help="that the file of a model of --space has at least")
    for name, what in (
        ("disk-free", "free on the file system of the database"),
        ("app-memory", "that the app's container may have"),
        ("worker-memory", "that the worker's container may have"),
    ):
        fits.add_argument(f"--{name}", type=int, metavar="BYTES", help=f"bytes {what}; not counted without it")
    drop = commands.add_parser("drop")
    drop.set_defaults(run=_drop)
    drop.add_argument("generations", nargs="*", type=int, metavar="ID", help="none means all that are kept")
    commands.add_parser("retry").set_defaults(run=_retry)
    commands.add_parser("releases").set_defaults(run=_releases)
    requeue = commands.add_parser("requeue")
    requeue.set_defaults(run=_requeue)
    requeue.add_argument("documents", nargs="*", metavar="ID", help="of documents; none means all that were given up")
    return parser


def _migrate(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    # Read first: a model that is not there should not leave a changed schema behind.
    index, keep = _read(wanted.embedding_folder()), switching.keep_limit()
    where = conninfo()
    wait_for_database(where, seconds=WAIT_SECONDS)
    before, after = migrate(where)
    with connect(where) as database:
        outcome = switching.want(database, index)
        pruned = switching.prune(database, keep)
        status = switching.status(database)
    return {
        "changed": before != after or outcome.changed or bool(pruned),
        "revision": after,
        "generation": outcome.done,
        "release": index.release,
        "generations": status,
    }, 0


def _generations(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    with connect(conninfo()) as database:
        return {"changed": False, **switching.status(database)}, 0


def _watch(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    give_up = time.monotonic() + options.seconds
    with connect(conninfo()) as database:
        while True:
            following = switching.following(database)
            refused = following is not None and following["state"] == "refused"
            if following is None or refused or time.monotonic() > give_up:
                break
            time.sleep(0.5)
    return {
        "changed": False,
        "finished": following is None or refused,
        "refused": refused,
        "lines": [following["summary"]] if following else [],
    }, 0


def _drop(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    with connect(conninfo()) as database:
        if options.generations:
            for identity in options.generations:
                switching.drop(database, identity)
            dropped = options.generations
        else:
            dropped = switching.prune(database, 0)
    return {"changed": bool(dropped), "dropped": dropped}, 0


def _retry(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    with connect(conninfo()) as database:
        outcome = switching.retry(database)
    return {"changed": outcome.changed, "generation": outcome.done}, 0


def _fits(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    folder = wanted.embedding_release(options.release) if options.release else None
    space = _read(folder).space if folder else options.space
    limits = fitting.Limits(disk_free=options.disk_free, app=options.app_memory, worker=options.worker_memory)
    try:
        with connect(conninfo()) as database:
            report = fitting.check(database, space, folder, limits, options.weights)
    except psycopg.errors.DiskFull:
        report = fitting.FULL
    if report.why:
        print(report.why, file=sys.stderr)
    return {
        "changed": False,
        "fits": report.why is None,
        "documents": report.documents,
        "second": report.second,
        "why": report.why,
        "counted": report.counted,
    }, REFUSED if report.why else 0


def _read(folder: Path) -> Index:
    return generations.read_wanted(folder, chunker=chunker.VERSION, analyser=analyser.VERSION)


def _releases(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    with connect(conninfo()) as database:
        every = generations.every(database)
    named = sorted({name for one in every for name in (one.release, one.wanted_release) if name})
    return {"changed": False, "releases": named}, 0


def _requeue(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    with connect(conninfo()) as database:
        requeued = jobs.requeue(database, options.documents or None)
    return {"changed": requeued > 0, "requeued": requeued}, 0


if __name__ == "__main__":
    sys.exit(main())
