"""`python -m store migrate`, the one-shot container before the app."""

import json
from pathlib import Path
from typing import Any

import postgres_server
from payload_process import environment, run

from store import documents
from store.connection import Database, connect
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
    serving = {"id": 1, "state": "active", "release": "tiny-embedding-1", "dimension": 32}
    assert json.loads(second.stdout) == {
        "changed": False,
        "revision": newest(),
        "generation": "kept generation 1",
        "release": "tiny-embedding-1",
        "generations": {"serving": serving | {"documents": 0, "done": 0, "chunks": 0}, "next": None, "kept": []},
    }


def test_the_wanted_release_goes_before_the_link(
    empty_database: str, model_environment: dict[str, str], tmp_path: Path
) -> None:
    container = environment(empty_database, model_environment, tmp_path, EMBED_RELEASE="tiny-embedding-2")
    assert json.loads(run("store migrate", environment=container).stdout)["release"] == "tiny-embedding-2"


def test_a_release_that_is_not_there_changes_nothing(
    empty_database: str, model_environment: dict[str, str], tmp_path: Path
) -> None:
    done = run(
        "store migrate", environment=environment(empty_database, model_environment, tmp_path, EMBED_RELEASE="gone")
    )
    assert done.returncode == 1
    assert "The embedding release gone is not in" in done.stderr


def fits(*options: str, environment: dict[str, str]) -> tuple[int, dict[str, Any]]:
    done = run("store fits", *options, environment=environment)
    return done.returncode, json.loads(done.stdout)


def test_no_second_generation_is_needed_while_there_are_no_documents(
    database_url: str, generation: Generation, model_environment: dict[str, str], tmp_path: Path
) -> None:
    container = environment(database_url, model_environment, tmp_path)
    for which in ("--release=tiny-embedding-2", '--space={"pooling": "another"}'):
        code, told = fits(which, "--disk-free=0", environment=container)
        assert (code, told["fits"], told["second"]) == (0, True, False)


def test_a_second_generation_is_weighed_against_what_there_is(
    database_url: str,
    database: Database,
    generation: Generation,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    documents.submit(database, [Document("a", "text" * 1000)])
    container = environment(database_url, model_environment, tmp_path)
    code, told = fits("--release=tiny-embedding-1", "--disk-free=0", environment=container)
    assert (code, told["second"]) == (0, False), "its own space needs nothing"
    code, told = fits("--release=tiny-embedding-2", environment=container)
    assert (code, told["second"], told["why"]) == (0, True, None)
    needed = told["counted"]
    assert needed["disk_needed"] > 4000 and needed["app_needed"] > needed["worker_needed"] > 0
    options = [
        f"--{name}={needed[key]}"
        for name, key in (
            ("disk-free", "disk_needed"),
            ("app-memory", "app_needed"),
            ("worker-memory", "worker_needed"),
        )
    ]
    assert fits("--release=tiny-embedding-2", *options, environment=container)[0] == 0
    code, told = fits("--release=tiny-embedding-2", "--disk-free=0", "--app-memory=1000", environment=container)
    assert (code, told["fits"]) == (3, False)
    assert "1 documents are indexed by tiny-embedding-1" in told["why"]
    assert "make room on the data disk" in told["why"] and "raise stack_app_memory_mb" in told["why"]


def test_before_a_model_is_built_what_is_not_known_of_its_space_is_as_it_is(
    database_url: str,
    database: Database,
    generation: Generation,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    documents.submit(database, [Document("a", "text")])
    container = environment(database_url, model_environment, tmp_path)
    same = json.dumps({**generation.space, "revision": None})
    assert fits(f"--space={same}", environment=container)[1]["second"] is False
    larger = json.dumps({**generation.space, "dimension": 1024})
    small, large = (
        fits(f"--space={space}", environment=container)[1]["counted"]["disk_needed"]
        for space in (json.dumps({**generation.space, "pooling": "another"}), larger)
    )
    assert 0 < small < large
    weighed = fits(f"--space={larger}", "--weights=1000000", "--app-memory=1000", environment=container)
    assert weighed[0] == 3 and "raise stack_app_memory_mb" in weighed[1]["why"]
    assert weighed[1]["counted"]["worker_needed"] > 1_000_000


def test_nothing_fits_on_a_disk_so_full_that_the_database_cannot_be_asked(
    own_postgres: postgres_server.Server, model_environment: dict[str, str], tmp_path: Path
) -> None:
    with connect(own_postgres.conninfo("postgres")) as server:
        server.execute("CREATE DATABASE asked")
    container = environment(own_postgres.conninfo("asked"), model_environment, tmp_path)
    with own_postgres.full():
        code, told = fits("--release=tiny-embedding-2", environment=container)
    assert (code, told["fits"]) == (3, False)
    assert "make room on the data disk" in told["why"]
    done = run("store fits", "--release=tiny-embedding-2", environment=container)
    assert done.returncode == 1, "without a schema it is a question that cannot be answered, not a refusal"


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


def test_the_life_of_another_embedding_by_its_commands(
    *,
    database_url: str,
    database: Database,
    generation: Generation,
    model_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    documents.submit(database, [Document("a", "text")])
    container = environment(database_url, model_environment, tmp_path, EMBED_RELEASE="tiny-embedding-2")

    def told(command: str) -> dict[str, Any]:
        done = run(f"store {command}", environment=container)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    first, second = told("migrate"), told("migrate")
    assert (first["changed"], second["changed"]) == (True, False)
    coming = second["generations"]["next"]
    assert (coming["state"], coming["release"], coming["done"]) == ("building", "tiny-embedding-2", 0)
    assert told("generations") == {"changed": False, **second["generations"]}
    assert told("releases")["releases"] == ["tiny-embedding-1", "tiny-embedding-2"]
    assert told("retry") == {"changed": False, "generation": "no generation is refused"}
    assert told("drop") == {"changed": False, "dropped": []}
    assert told(f"drop {coming['id']}") == {"changed": True, "dropped": [coming["id"]]}
    assert told("generations")["next"] is None
    done = run(f"store drop {generation.id}", environment=container)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"store drop: Generation {generation.id} serves; switch to another")
