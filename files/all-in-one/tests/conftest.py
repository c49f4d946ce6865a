"""What the payload's tests share: a real PostgreSQL with pgvector, and small real models in a models folder."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import psycopg
import pytest
import tiny_models

from store import generations, switching
from store.connection import Database, connect
from store.migrate import migrate
from text import analyser, chunker

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Server]:
    """One server for the session; do not stop it, others use it."""
    server = postgres_server.create()
    yield server
    server.remove()


@pytest.fixture
def own_postgres() -> Iterator[postgres_server.Server]:
    """A server that a test may stop."""
    server = postgres_server.create()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def migrated(postgres: postgres_server.Server) -> str:
    """Name of a database with the schema and nothing else, to copy from."""
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    migrate(postgres.conninfo("migrated"))
    return "migrated"


@pytest.fixture
def empty_database(postgres: postgres_server.Server) -> Iterator[str]:
    """Connection string of a database without a schema."""
    yield from _database(postgres, "template1")


@pytest.fixture
def database_url(postgres: postgres_server.Server, migrated: str) -> Iterator[str]:
    """Connection string of a database with the schema, without a generation."""
    yield from _database(postgres, migrated)


@pytest.fixture(scope="module")
def ready_database(postgres: postgres_server.Server, migrated: str, index: generations.Index) -> Iterator[str]:
    """Connection string of a database with the first small model's generation, one for the whole module."""
    for where in _database(postgres, migrated):
        with connect(where) as connection:
            switching.want(connection, index)
        yield where


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A connection to `database_url`."""
    with connect(database_url) as connection:
        yield connection


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder: releases/ID with two embedding spaces and a reranker, and the links emb and rerank."""
    root = tmp_path_factory.mktemp("models")
    embedding = tiny_models.write_embedding_release(root / "releases", revision="1")
    tiny_models.write_embedding_release(root / "releases", revision="1", release="tiny-embedding-1-again")
    tiny_models.write_embedding_release(root / "releases", revision="2")
    tiny_models.write_embedding_release(root / "releases", revision="3", prefixes={"query": "", "passage": ""})
    reranker = tiny_models.write_reranker_release(root / "releases")
    (root / "emb").symlink_to(embedding.relative_to(root))
    (root / "rerank").symlink_to(reranker.relative_to(root))
    return root


@pytest.fixture(scope="module")
def model_environment(releases: Path) -> Iterator[dict[str, str]]:
    """The variables that name the small models, set for this process while the module's tests run."""
    environment = {"EMBED_ONNX_DIR": str(releases / "emb"), "RERANK_ONNX_DIR": str(releases / "rerank")}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("EMBED_RELEASE", "RERANK_RELEASE", "EMBED_ONNX_PATH", "RERANK_ONNX_PATH"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield environment


@pytest.fixture(scope="session")
def index(releases: Path) -> generations.Index:
    """What the first small embedding model asks for."""
    return generations.read_wanted(releases / "emb", chunker=chunker.VERSION, analyser=analyser.VERSION)


@pytest.fixture
def other(releases: Path) -> generations.Index:
    """Another embedding space than that of `generation`."""
    folder = releases / "releases" / "tiny-embedding-2"
    return generations.read_wanted(folder, chunker=chunker.VERSION, analyser=analyser.VERSION)


@pytest.fixture
def generation(database: Database, index: generations.Index) -> generations.Generation:
    """The active generation of `database`."""
    switching.want(database, index)
    active = generations.active(database)
    assert active is not None
    return active


def _database(server: postgres_server.Server, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield server.conninfo(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
