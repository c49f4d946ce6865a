"""Which vectors belong together, and what happens when another model is wanted."""

from pathlib import Path

import pytest

from store import documents, generations, switching
from store.connection import Database, connect
from store.documents import Document
from store.errors import StoreError
from store.generations import Generation, Index
from store.migrate import migrate, newest


def wanted(releases: Path, release: str) -> Index:
    return generations.read_wanted(releases / "releases" / release, chunker="c1", analyser="a1")


def undo_revisions_after_the_first(database: Database) -> None:
    database.execute("DROP TABLE job_refusals")
    database.execute("DROP INDEX generations_next, items_queued_in")
    for column in ("wanted_release", "why", "gate", "retired_at"):
        database.execute(f"ALTER TABLE generations DROP COLUMN {column}")
    database.execute("DROP INDEX documents_metadata")
    database.execute("UPDATE alembic_version SET version_num = '0001'")


def columns_of(database: Database, *tables: str) -> set[tuple[str, str]]:
    rows = database.execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = ANY(%s)", [list(tables)]
    ).fetchall()
    return {(row["column_name"], row["data_type"]) for row in rows}


def vector_indexes(database: Database, table: str) -> dict[str, str]:
    """{name: on what, and how}."""
    rows = database.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexdef LIKE '%%hnsw%%'", [table]
    ).fetchall()
    return {row["indexname"]: row["indexdef"].split(" ON ")[1] for row in rows}


def test_migrating_twice_changes_nothing(empty_database: str) -> None:
    assert migrate(empty_database) == (None, newest())
    assert migrate(empty_database) == (newest(), newest())


def test_a_generation_of_an_older_version_is_migrated_too(
    database: Database, database_url: str, generation: Generation
) -> None:
    chunks, lexemes = f"generation_{generation.id}_chunks", f"generation_{generation.id}_lexemes"
    columns, indexes = columns_of(database, chunks, lexemes), vector_indexes(database, chunks)
    # As the first revision left it, with the statements of that time.
    database.execute(f"ALTER TABLE {chunks} DROP COLUMN passage_hash")
    database.execute(f"ALTER TABLE {lexemes} DROP COLUMN places")
    for name in indexes:
        database.execute(f"DROP INDEX {name}")
    database.execute(f"CREATE INDEX of_all ON {chunks} USING hnsw (embedding vector_ip_ops)")
    # What a migration that was killed leaves behind.
    database.execute(f"CREATE INDEX {chunks}_other ON {chunks} (id)")
    undo_revisions_after_the_first(database)
    assert migrate(database_url) == ("0001", newest())
    assert columns_of(database, chunks, lexemes) == columns
    now = vector_indexes(database, chunks)
    assert now.pop("of_all")
    assert sorted(now.values()) == sorted(indexes.values())


def test_a_database_of_a_newer_version_is_refused(database: Database, database_url: str) -> None:
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="revision 9999, which this version does not know"):
        migrate(database_url)


def test_before_the_migration_nothing_serves(empty_database: str) -> None:
    with connect(empty_database) as connection, pytest.raises(StoreError, match="run `python -m store migrate` first"):
        generations.serving(connection)


def test_before_the_first_generation_nothing_serves(database: Database, releases: Path) -> None:
    with pytest.raises(StoreError, match="run `python -m store migrate` first"):
        generations.serving(database)
    switching.want(database, wanted(releases, "tiny-embedding-1"))
    assert generations.serving(database).release == "tiny-embedding-1"


def test_the_first_generation_comes_from_the_release(database: Database, releases: Path) -> None:
    outcome = switching.want(database, wanted(releases, "tiny-embedding-1"))
    active = generations.active(database)
    assert outcome.changed
    assert active is not None
    assert (active.release, active.dimension, active.space["revision"]) == ("tiny-embedding-1", 32, "1")


def test_the_same_release_again_changes_nothing(database: Database, releases: Path) -> None:
    switching.want(database, wanted(releases, "tiny-embedding-1"))
    assert not switching.want(database, wanted(releases, "tiny-embedding-1")).changed


def test_without_documents_another_release_of_the_same_space_takes_over_at_once(
    database: Database, releases: Path
) -> None:
    switching.want(database, wanted(releases, "tiny-embedding-1"))
    before = generations.active(database)
    outcome = switching.want(database, wanted(releases, "tiny-embedding-1-again"))
    after = generations.active(database)
    assert outcome.changed
    assert before and after and after.id == before.id
    assert after.release == "tiny-embedding-1-again"


def test_another_space_replaces_an_empty_index(database: Database, releases: Path) -> None:
    switching.want(database, wanted(releases, "tiny-embedding-1"))
    before = generations.active(database)
    switching.want(database, wanted(releases, "tiny-embedding-2"))
    after = generations.active(database)
    assert before and after and after.id != before.id
    assert [generation.id for generation in generations.every(database)] == [after.id]


def test_another_chunker_queues_every_document_again(database: Database, generation: Generation, index: Index) -> None:
    documents.submit(database, [Document("a", "text"), Document("b", "text")])
    database.execute("UPDATE items SET state = 'done'")
    outcome = switching.want(
        database, Index(index.space, index.dimension, index.release, "another chunker", index.analyser)
    )
    queued = database.execute("SELECT document_id FROM items WHERE state = 'queued' ORDER BY 1").fetchall()
    assert "queued 2 documents" in outcome.done
    assert [row["document_id"] for row in queued] == ["a", "b"]


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"manifest.json cannot be read .*build the embedding model as a release"):
        generations.read_wanted(tmp_path, chunker="c", analyser="a")


def test_a_reranker_is_no_embedding_release(releases: Path) -> None:
    with pytest.raises(StoreError, match="is not an embedding release"):
        generations.read_wanted(releases / "rerank", chunker="c", analyser="a")
