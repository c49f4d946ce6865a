"""`onebox` against a real box: what is ingested is found, twice is once, and what cannot be taken is told."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from box import HASHES, KEYS
from served import Served, served

from app.keys import key_of
from app.settings import Settings
from onebox.client import OneboxError
from onebox.command import main

LIMIT = 3000  # characters of a document
SEARCHER = key_of("searcher", ["search"], "search-key")


@pytest.fixture(scope="module")
def box(
    ready_database: str, model_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    settings = Settings(keys=(*HASHES, SEARCHER), max_body=20_000, max_documents=50, max_text=LIMIT)
    with served(ready_database, settings, tmp_path_factory.mktemp("worker")) as box:
        yield box


@pytest.fixture(autouse=True)
def environment(box: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    key.write_text(KEYS[0])
    monkeypatch.setenv("ONEBOX_URL", box.url)
    monkeypatch.setenv("ONEBOX_KEY_FILE", str(key))


def count(box: Served) -> int:
    with box.services.pool.connection() as database:
        row = database.execute("SELECT count(*) AS documents FROM documents").fetchone()
    assert row is not None
    return int(row["documents"])


def embedded(box: Served) -> list[str]:
    """When each chunk was written, all together: the same list means that nothing was embedded meanwhile."""
    with box.services.pool.connection() as database:
        rows = database.execute("SELECT document_id, chunks, content_hash FROM indexed ORDER BY document_id").fetchall()
        items = database.execute("SELECT count(*) AS items FROM items").fetchone()
    return [str(row) for row in rows] + [str(items)]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "안내"
    folder.mkdir()
    (folder / "반품.md").write_text("# 반품 안내\n\n자전거 반품은 7일 안에 할 수 있습니다.\n")
    (folder / "shipping.html").write_text("<title>Shipping</title><p>Shipping a bicycle is free of charge.</p>")
    (folder / "faq.csv").write_text("id,title,text,lang\nfaq-1,대여,자전거 대여는 2층에서 합니다.,ko\n")
    (folder / "rows.jsonl").write_text('{"text": "헬멧은 무료로 빌려 드립니다.", "lang": "ko"}\n')
    return folder


def test_what_is_ingested_is_found_and_the_same_again_costs_nothing(
    box: Served, docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", str(docs)]) == 0
    assert capsys.readouterr().out == "4 documents in the box, 4 new or changed\n"
    assert main(["search", "헬멧", "무료로", "--filter", "lang=ko", "--expect", "안내/rows.jsonl#1"]) == 0
    assert main(["search", "bicycle shipping free", "--expect", "안내/shipping.html"]) == 0
    assert "[안내/shipping.html]" in capsys.readouterr().out
    before = embedded(box)
    assert main(["ingest", str(docs)]) == 0
    assert capsys.readouterr().out == "4 documents in the box, nothing changed\n"
    assert embedded(box) == before


def test_a_file_that_changed_replaces_its_document(box: Served, docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["ingest", str(docs)])
    before = count(box)
    (docs / "반품.md").write_text("# 반품 안내\n\n자전거 반품은 30일 안에 할 수 있습니다.\n")
    capsys.readouterr()
    assert main(["ingest", str(docs)]) == 0
    assert capsys.readouterr().out == "4 documents in the box, 1 new or changed\n"
    assert count(box) == before
    main(["search", "자전거 반품", "--json"])
    texts = [result["text"] for result in json.loads(capsys.readouterr().out)["results"]]
    assert any("30일" in text for text in texts) and not any("7일" in text for text in texts)


def test_what_the_box_refuses_is_told_with_file_and_line_and_the_rest_is_kept(
    box: Served, docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = docs / "rows.jsonl"
    rows.write_text(
        "\n".join(
            json.dumps(record)
            for record in (
                {"id": "long", "text": "x" * (LIMIT + 1)},
                {"id": "i" * 600, "text": "x"},
                {"id": "huge", "text": "x" * 30_000},
                {"id": "nul", "text": "nul \x00"},
                {"id": "good", "text": "우산은 현관에서 빌릴 수 있습니다."},
            )
        )
    )
    before = count(box)
    assert main(["ingest", str(rows)]) == 1
    captured = capsys.readouterr()
    assert f"{rows}:1: text has {LIMIT + 1} characters, the limit is {LIMIT}.\n" in captured.err
    assert f"{rows}:2: id has 600 characters, the limit is 512.\n" in captured.err
    assert f"{rows}:3: The body has more than 20000 bytes; send less at once.\n" in captured.err
    assert f"{rows}:4: text contains the character U+0000.\n" in captured.err
    assert captured.out == "1 documents in the box, 1 new or changed, 4 refused\n"
    assert count(box) == before + 1


def test_more_than_the_box_takes_at_once_arrives_all_the_same(
    box: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = tmp_path / "many.jsonl"
    many.write_text("\n".join(json.dumps({"text": f"사물함 {number}번 안내 " * 20}) for number in range(120)))
    before = count(box)
    assert main(["ingest", str(many), "--metadata", "kind=locker"]) == 0
    assert count(box) == before + 120
    assert capsys.readouterr().out == "120 documents in the box, 120 new or changed\n"


def test_a_document_that_was_given_up_is_told_listed_and_tried_again(
    box: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "heavy.txt").write_text("무거운 문서")
    assert main(["ingest", str(tmp_path / "heavy.txt")]) == 0
    assert main(["parked"]) == 0
    with box.services.pool.connection() as database:
        database.execute("DELETE FROM indexed WHERE document_id = 'heavy.txt'")
        database.execute(
            "UPDATE items SET state = 'parked', attempts = 3, reason = 'too heavy' WHERE document_id = 'heavy.txt'"
        )
    capsys.readouterr()
    assert main(["parked"]) == 1
    assert capsys.readouterr().out == "heavy.txt: too heavy\n"
    assert main(["requeue", "heavy.txt"]) == 0
    assert capsys.readouterr().out == "1 tried again\n"
    assert main(["requeue", "heavy.txt"]) == 1


def test_a_key_that_may_not_ingest_is_told_so(
    box: Served, docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("search-key")
    assert main(["search", "x"]) == 0
    assert main(["status"]) == 0
    assert f"documents   {count(box)}" in capsys.readouterr().out
    with pytest.raises(OneboxError, match="POST /documents with 403: This takes the scope ingest; the key has search"):
        main(["ingest", str(docs)])


def test_the_status_tells_what_serves_and_what_waits(box: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "status      ok\n" in out
    assert "embedding   tiny-embedding, release tiny-embedding-1\n" in out
    assert f"documents   {count(box)}\n" in out and "0 parked" in out


def test_a_database_that_restarts_on_the_way_costs_nothing(
    box: Served,
    ready_database: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = tmp_path / "restart.jsonl"
    many.write_text("\n".join(json.dumps({"text": f"우편함 {number}번"}) for number in range(100)))
    monkeypatch.setattr("onebox.ingesting.BATCH_DOCUMENTS", 10)
    with psycopg.connect(ready_database, autocommit=True) as administrator:
        administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert main(["ingest", str(many)]) == 0
    assert capsys.readouterr().out == "100 documents in the box, 100 new or changed\n"
