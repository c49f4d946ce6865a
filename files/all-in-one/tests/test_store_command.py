"""`python -m store migrate`, the one-shot container before the app."""

import json
from pathlib import Path

from payload_process import environment, run

from store import documents
from store.connection import Database
from store.documents import Document
from store.generations import Generation
from store.migrate import newest


def test_it_prepares_an_empty_database_and_then_changes_nothing(
    empty_database: str, model_environment: dict[str, str], tmp_path: Path
) -> None:
    container = environment(empty_database, model_environment, tmp_path)
    first, second = (run("store migrate", environment=container) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert json.loads(first.stdout)["changed"] is True
    assert json.loads(second.stdout) == {
        "changed": False,
        "revision": newest(),
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


def fits(*options: str, environment: dict[str, str]) -> tuple[int, str]:
    done = run("store fits", *options, environment=environment)
    return done.returncode, done.stderr


def test_any_embedding_fits_while_there_are_no_documents(
    database_url: str, generation: Generation, model_environment: dict[str, str], tmp_path: Path
) -> None:
    container = environment(database_url, model_environment, tmp_path)
    assert fits("--release=tiny-embedding-2", environment=container) == (0, "")
    assert fits('--space={"pooling": "another"}', environment=container) == (0, "")


def test_with_documents_only_their_own_space_fits(
    database_url: str,
    database: Database,
    generation: Generation,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    documents.submit(database, [Document("a", "text")])
    container = environment(database_url, model_environment, tmp_path)
    assert fits("--release=tiny-embedding-1", environment=container) == (0, "")
    code, why = fits("--release=tiny-embedding-2", environment=container)
    assert code == 3
    assert "1 documents are indexed by tiny-embedding-1" in why


def test_before_a_model_is_built_what_is_not_known_of_its_space_does_not_count(
    database_url: str,
    database: Database,
    generation: Generation,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    documents.submit(database, [Document("a", "text")])
    container = environment(database_url, model_environment, tmp_path)
    same = json.dumps({**generation.space, "revision": None})
    assert fits(f"--space={same}", environment=container) == (0, "")
    code, why = fits(f"--space={json.dumps({**generation.space, 'pooling': 'another'})}", environment=container)
    assert (code, "'another'" in why) == (3, True)


def test_releases_are_those_that_indexes_name(
    database_url: str, generation: Generation, model_environment: dict[str, str], tmp_path: Path
) -> None:
    done = run("store releases", environment=environment(database_url, model_environment, tmp_path))
    assert json.loads(done.stdout) == {"changed": False, "releases": [generation.release]}


def test_what_was_given_up_is_tried_again(
    database_url: str,
    database: Database,
    generation: Generation,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    documents.submit(database, [Document("a", "text"), Document("b", "text")])
    database.execute("UPDATE items SET state = 'parked', reason = 'too heavy'")
    container = environment(database_url, model_environment, tmp_path)
    answers = [json.loads(run(f"store requeue {what}", environment=container).stdout) for what in ("b", "", "")]
    assert [(answer["changed"], answer["requeued"]) for answer in answers] == [(True, 1), (True, 1), (False, 0)]
