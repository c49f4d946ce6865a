"""Commands on the database; each prints one JSON line.

migrate: the schema, then the generation that the wanted embedding model needs.
fits: whether the indexed documents allow an embedding; exit code 3 and the reason when they do not.
releases: the model releases that indexes were made with.
requeue: what was given up, or the named documents of it, is tried again.
"""

import argparse
import json
import sys
from pathlib import Path

import psycopg

from store import generations, jobs, wanted
from store.connection import connect, conninfo
from store.errors import StoreError
from store.generations import Generation, Index
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
    fits = commands.add_parser("fits")
    fits.set_defaults(run=_fits)
    which = fits.add_mutually_exclusive_group(required=True)
    which.add_argument("--release", help="ID of a release in the models folder")
    which.add_argument("--space", type=json.loads, help="JSON object; null where a value is not known yet")
    commands.add_parser("releases").set_defaults(run=_releases)
    requeue = commands.add_parser("requeue")
    requeue.set_defaults(run=_requeue)
    requeue.add_argument("documents", nargs="*", metavar="ID", help="of documents; none means all that were given up")
    return parser


def _migrate(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    # Read first: a model that is not there should not leave a changed schema behind.
    index = _read(wanted.embedding_folder())
    where = conninfo()
    wait_for_database(where, seconds=WAIT_SECONDS)
    before, after = migrate(where)
    with connect(where) as database:
        outcome = generations.ensure(database, index)
    return {
        "changed": before != after or outcome.changed,
        "revision": after,
        "generation": outcome.done,
        "release": index.release,
    }, 0


def _fits(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    with connect(conninfo()) as database:
        found, documents = generations.active(database), generations.count_documents(database)
    asked = _read(wanted.embedding_release(options.release)) if options.release else None
    why = None
    if found is not None and documents:
        index = asked or _index(found, options.space)
        if (index.space, index.dimension) != (found.space, found.dimension):
            why = generations.refusal(found, index, documents)
            print(why, file=sys.stderr)
    return {"changed": False, "fits": why is None, "documents": documents}, REFUSED if why else 0


def _index(found: Generation, space: dict[str, object]) -> Index:
    """What is asked for before it is built: what is not known yet is taken to be as it is."""
    known = {name: value for name, value in space.items() if value is not None}
    merged = {**found.space, **known}
    return Index(merged, int(str(merged["dimension"])), "the wanted model", found.chunker, found.analyser)


def _read(folder: Path) -> Index:
    return generations.read_wanted(folder, chunker=chunker.VERSION, analyser=analyser.VERSION)


def _releases(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    with connect(conninfo()) as database:
        named = sorted({generation.release for generation in generations.every(database)})
    return {"changed": False, "releases": named}, 0


def _requeue(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    with connect(conninfo()) as database:
        requeued = jobs.requeue(database, options.documents or None)
    return {"changed": requeued > 0, "requeued": requeued}, 0


if __name__ == "__main__":
    sys.exit(main())
