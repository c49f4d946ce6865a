"""The worker in this process: what becomes of documents, good and bad."""

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from box import PATIENCE, running_worker

from app import log
from pipeline.embedder import Embedder
from store import documents, generations, jobs, switching
from store.connection import Database
from store.documents import Document
from store.generations import Generation
from text import analyser, chunker
from text.analyser import Analyser
from worker import heartbeat, indexing, loop, settings
from worker.settings import SettingsError


def finish(database: Database) -> None:
    """Return once nothing waits."""
    give_up = time.monotonic() + PATIENCE
    while (depth := jobs.queue(database))["queued"] or depth["running"]:
        assert time.monotonic() < give_up, depth
        time.sleep(0.02)


def contents(database: Database, generation: Generation, document: str) -> list[str]:
    rows = database.execute(
        f"SELECT content FROM generation_{generation.id}_chunks WHERE document_id = %s ORDER BY ordinal", [document]
    ).fetchall()
    return [row["content"] for row in rows]


def test_a_document_becomes_chunks_vectors_and_lexemes(
    database: Database, database_url: str, generation: Generation, model_environment: dict[str, str], tmp_path: Path
) -> None:
    text = "반품은 7일 안에 할 수 있습니다. " * 40
    with running_worker(database_url, tmp_path):
        documents.submit(database, [Document("a", text, title="반품 정책")])
        finish(database)
    found = documents.get(database, "a")
    assert found is not None and found["state"] == "indexed" and found["chunks"] > 1
    assert len(contents(database, generation, "a")) == found["chunks"]
    frequency = database.execute(
        f"SELECT chunks FROM generation_{generation.id}_frequencies WHERE lexeme = '반품'"
    ).fetchone()
    assert frequency is not None and frequency["chunks"] == found["chunks"]


def test_words_are_stored_with_their_places_in_the_text_below_the_title(
    database: Database, database_url: str, generation: Generation, model_environment: dict[str, str], tmp_path: Path
) -> None:
    text = "환불은 3일 안에, 카드 환불은 E-204 오류가 없으면 하루 안에 됩니다."
    with running_worker(database_url, tmp_path):
        documents.submit(database, [Document("a", text, title="환불 안내")])
        finish(database)
    rows = database.execute(f"SELECT lexeme, occurrences, places FROM generation_{generation.id}_lexemes").fetchall()
    found = {row["lexeme"]: [text[place.lower : place.upper] for place in row["places"]] for row in rows}
    assert found["환불"] == ["환불", "환불"]
    assert next(row["occurrences"] for row in rows if row["lexeme"] == "환불") == 3
    assert found["e204"] == ["E-204"]
    assert found["안내"] == []


@pytest.mark.parametrize(
    ("passage", "before", "places"),
    [
        ("환불 카드", 0, {"환불": ["환불"], "카드": ["카드"]}),
        ("제목\n환불 카드", 3, {"환불": ["환불"], "카드": ["카드"]}),
        ("환불\n😀 ① ﬁne 환불", 3, {"환불": ["환불"], "1": ["①"], "fine": ["ﬁne"]}),
        ("café\ncafe\u0301", 5, {"café": ["cafe\u0301"]}),
    ],
)
def test_places_are_counted_from_where_the_text_begins(passage: str, before: int, places: dict[str, list[str]]) -> None:
    text = passage[before:]
    found = indexing.standing(Analyser().words(passage), before)
    assert {lexeme: [text[start:end] for start, end in spans] for lexeme, spans in found.items()} == places


def test_an_edited_document_embeds_only_what_changed(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    model_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedded: list[str] = []
    encode = Embedder.encode_with_info

    def noted(self: Embedder, texts: Sequence[str], **options: Any) -> Any:
        embedded.extend(texts)
        return encode(self, texts, **options)

    monkeypatch.setattr(Embedder, "encode_with_info", noted)
    paragraphs = [f"{number}번 매장은 {number}층에 있고 아침 {number}시에 문을 엽니다. " * 12 for number in range(1, 7)]
    edited = [*paragraphs[:-1], paragraphs[-1] + "일요일에는 쉽니다."]
    with running_worker(database_url, tmp_path):
        documents.submit(database, [Document("a", "".join(paragraphs), title="매장")])
        finish(database)
        first = list(embedded)
        documents.submit(database, [Document("a", "".join(edited), title="매장")])
        finish(database)
        second = embedded[len(first) :]
        documents.submit(database, [Document("copy", "".join(edited), title="매장")])
        finish(database)
    assert len(first) > 3 and len(set(first)) == len(first)
    assert len(second) < len(first) / 2 and all("일요일" in text for text in second)
    assert len(embedded) == len(first) + len(second), "the copy's passages were embedded again"
    assert contents(database, generation, "copy") == contents(database, generation, "a")
    vectors = [
        database.execute(
            f"SELECT embedding::text FROM generation_{generation.id}_chunks WHERE document_id = %s ORDER BY ordinal",
            [name],
        ).fetchall()
        for name in ("a", "copy")
    ]
    assert vectors[0] == vectors[1]


def test_a_poison_document_is_parked_and_the_others_are_indexed(
    database: Database, database_url: str, releases: Path, model_environment: dict[str, str], tmp_path: Path
) -> None:
    # A model without prefixes gives a text of padding alone the vector zero, which no index can rank.
    wanted = generations.read_wanted(
        releases / "releases" / "tiny-embedding-3", chunker=chunker.VERSION, analyser=analyser.VERSION
    )
    switching.want(database, wanted)
    job = documents.submit(
        database, [Document("before", "반품 정책"), Document("poison", "[PAD][PAD]"), Document("after", "배송 정책")]
    )
    with running_worker(database_url, tmp_path):
        finish(database)
    status = jobs.status(database, job)
    assert status is not None
    assert (status["status"], status["done"]) == ("failed", 2)
    assert [failure["document"] for failure in status["failures"]] == ["poison"]
    attempts = database.execute("SELECT attempts FROM items WHERE state = 'parked'").fetchone()
    assert attempts == {"attempts": 3}
    states = {name: documents.get(database, name)["state"] for name in ("before", "poison", "after")}  # type: ignore[index]
    assert states == {"before": "indexed", "poison": "parked", "after": "indexed"}


def test_a_document_without_a_token_is_indexed_without_chunks(
    database: Database, database_url: str, generation: Generation, model_environment: dict[str, str], tmp_path: Path
) -> None:
    documents.submit(database, [Document("a", "\u3000")])
    with running_worker(database_url, tmp_path):
        finish(database)
    found = documents.get(database, "a")
    assert found is not None and (found["state"], found["chunks"]) == ("indexed", 0)


def test_the_heartbeat_goes_on_while_idle(
    database_url: str, generation: Generation, model_environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "heartbeat"
    assert heartbeat.age(file) is None
    with running_worker(database_url, tmp_path):
        give_up = time.monotonic() + PATIENCE
        while heartbeat.age(file) is None:
            assert time.monotonic() < give_up
            time.sleep(0.02)
        file.touch()
        first = file.stat().st_mtime
        time.sleep(0.3)
        assert file.stat().st_mtime > first


@pytest.mark.parametrize(("name", "value"), [("WORKER_THREADS", "0"), ("WORKER_LEASE_SECONDS", "long")])
def test_a_variable_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is '{value}'; write a number"):
        settings.from_environment({name: value})


def test_what_the_database_refuses_counts_against_the_document(
    database: Database, database_url: str, generation: Generation, model_environment: dict[str, str], tmp_path: Path
) -> None:
    # A statement that cannot end in time is reported like a lost connection; it must not be tried for ever.
    database.execute(
        f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION USING ERRCODE = 'query_canceled', MESSAGE = 'too slow'; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON generation_{generation.id}_chunks
            FOR EACH ROW EXECUTE FUNCTION refuse()"""
    )
    job = documents.submit(database, [Document("a", "반품 정책")])
    with running_worker(database_url, tmp_path):
        finish(database)
    status = jobs.status(database, job)
    assert status is not None and status["status"] == "failed"
    assert "too slow" in status["error"]


def test_a_full_disk_is_waited_for_and_no_documents_fault(
    *,
    database: Database,
    database_url: str,
    generation: Generation,
    model_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = io.StringIO()
    monkeypatch.setattr(log, "stream", told)
    monkeypatch.setattr(loop, "RECONNECT", 0.05)
    database.execute(
        f"""CREATE TABLE tries (number bigint GENERATED ALWAYS AS IDENTITY);
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM nextval(pg_get_serial_sequence('tries', 'number'));
                RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file';
            END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON generation_{generation.id}_chunks
            FOR EACH ROW EXECUTE FUNCTION refuse()"""
    )
    job = documents.submit(database, [Document("a", "반품 정책"), Document("b", "배송 정책")])
    with running_worker(database_url, tmp_path):
        give_up = time.monotonic() + PATIENCE
        # A sequence remembers what was rolled back; more tries than attempts are allowed.
        while (row := database.execute("SELECT last_value FROM tries_number_seq").fetchone()) and row["last_value"] < 6:
            assert time.monotonic() < give_up
            time.sleep(0.02)
        database.execute(f"DROP TRIGGER refuse ON generation_{generation.id}_chunks")
        finish(database)
    status = jobs.status(database, job)
    assert status is not None and (status["status"], status["done"]) == ("done", 2)
    assert database.execute("SELECT DISTINCT attempts FROM items").fetchall() == [{"attempts": 1}]
    assert "no room left on its disk" in told.getvalue()
