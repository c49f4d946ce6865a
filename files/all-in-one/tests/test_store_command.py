"""`python -m store migrate`, the one-shot container before the app."""

import json
from pathlib import Path

from payload_process import environment, run

from store import documents
from store.connection import Database
from store.documents import Document
from store.generations import Generation


def test_it_prepares_an_empty_database_and_then_changes_nothing(
    empty_database: str, model_environment: dict[str, str], tmp_path: Path
) -> None:
    container = environment(empty_database, model_environment, tmp_path)
    first, second = (run("store migrate", environment=container) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert json.loads(first.stdout)["changed"] is True
    assert json.loads(second.stdout) == {
        "changed": False,
        "revision": "0001",
        "generation": "kept generation 1",
        "release": "tiny-embedding-1",
    }


def test_the_wanted_release_goes_before_the_link(
    empty_database: str, model_environment: dict[str, str], tmp_path: Path
) -> None:
    container = environment(empty_database, model_environment, tmp_path, EMBED_RELEASE="tiny-embedding-2")
    assert json.loads(run("store migrate", environment=container).stdout)["release"] == "tiny-embedding-2"


def test_another_space_with_documents_is_refused_in_one_sentence(
    database_url: str,
    database: Database,
    generation: Generation,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    documents.submit(database, [Document("a", "text")])
    container = environment(database_url, model_environment, tmp_path, EMBED_RELEASE="tiny-embedding-2")
    done = run("store migrate", environment=container)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert "1 documents are indexed by tiny-embedding-1" in sentence
    assert "keep the previous embedding model" in sentence


def test_a_release_that_is_not_there_changes_nothing(
    empty_database: str, model_environment: dict[str, str], tmp_path: Path
) -> None:
    done = run(
        "store migrate", environment=environment(empty_database, model_environment, tmp_path, EMBED_RELEASE="gone")
    )
    assert done.returncode == 1
    assert "The embedding release gone is not in" in done.stderr
