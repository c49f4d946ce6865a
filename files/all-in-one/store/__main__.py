"""`python -m store migrate`: the schema, then the generation that the wanted embedding model needs."""

import argparse
import json
import sys

import psycopg

from store import generations, wanted
from store.connection import connect, conninfo
from store.errors import StoreError
from store.migrate import migrate, wait_for_database
from text import analyser, chunker

WAIT_SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m store", description=__doc__)
    parser.add_argument("command", choices=["migrate"])
    parser.parse_args()
    try:
        print(json.dumps(_migrate()))
    except (StoreError, psycopg.Error) as error:
        print(f"store migrate: {error}", file=sys.stderr)
        return 1
    return 0


def _migrate() -> dict[str, object]:
    # Read first: a model that is not there should not leave a changed schema behind.
    index = generations.read_wanted(wanted.embedding_folder(), chunker=chunker.VERSION, analyser=analyser.VERSION)
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
    }


if __name__ == "__main__":
    sys.exit(main())
