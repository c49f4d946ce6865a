"""Every kind of file gives the documents that its reader would expect, with ids that stay."""

import json
from pathlib import Path

import pytest

from onebox import formats
from onebox.client import OneboxError
from onebox.files import find
from onebox.formats import Reading, read
from onebox.records import Document, Fields, Problem


def entries(folder: Path, reading: Reading | None = None, format: str | None = None) -> list[Document | Problem]:
    return [entry for file in find([folder], format=format).files for entry in read(file, reading or Reading())]


def documents(folder: Path, reading: Reading | None = None, format: str | None = None) -> list[Document]:
    found = entries(folder, reading, format)
    assert all(isinstance(entry, Document) for entry in found), found
    return [entry for entry in found if isinstance(entry, Document)]


def problems(folder: Path, reading: Reading | None = None, format: str | None = None) -> list[str]:
    return [
        f"{entry.origin.file.name}:{entry.origin.line}: {entry.reason}"
        for entry in entries(folder, reading, format)
        if isinstance(entry, Problem)
    ]


# Which files


def test_a_folder_gives_its_known_files_in_order_under_their_relative_paths(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    for name in ("b.txt", "a/두 번째.md", ".hidden.txt", ".git/x.txt", "photo.JPG", "page.HTML"):
        path = docs / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("글")
    found = find([docs])
    assert [file.name for file in found.files] == ["docs/b.txt", "docs/page.HTML", "docs/a/두 번째.md"]
    assert found.others == {".jpg": 1}


def test_the_ids_do_not_depend_on_where_one_stands_or_how_the_folder_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs" / "ko").mkdir(parents=True)
    (tmp_path / "docs" / "ko" / "a.txt").write_text("글")
    names = []
    for place, path in ((tmp_path, "docs"), (tmp_path / "docs", "."), (tmp_path / "docs" / "ko", "..")):
        monkeypatch.chdir(place)
        names += [file.name for file in find([Path(path)]).files]
    monkeypatch.chdir(tmp_path)
    names += [file.name for file in find([Path("docs/ko/a.txt")], root=Path(".")).files]
    assert names == ["docs/ko/a.txt"] * 4


def test_a_name_in_single_letters_is_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "가.txt").write_text("글")
    assert find([tmp_path / "가.txt"]).files[0].name == "가.txt"


def test_a_path_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(OneboxError, match="nowhere cannot be read: No such file"):
        find([tmp_path / "nowhere"])
    with pytest.raises(OneboxError, match=r"a.pdf ends with none of .*--format \(text"):
        find([tmp_path / "a.pdf"])
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(OneboxError, match=r"a.pdf is not below --root"):
        find([tmp_path / "a.pdf"], root=tmp_path / "elsewhere")
    assert [file.format for file in find([tmp_path / "a.pdf"], format="text").files] == ["text"]


# Files that are one document


def test_a_text_is_titled_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "반품.txt").write_bytes("\ufeff반품 안내".encode())
    assert documents(tmp_path / "반품.txt")[0].line({"k": 1}) == json.dumps(
        {"id": "반품.txt", "title": "반품", "text": "반품 안내", "source": "반품.txt", "metadata": {"k": 1}},
        ensure_ascii=False,
    ).encode()  # fmt: skip


def test_markdown_is_titled_by_its_first_heading(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("```\n# not this\n```\n## 배송 안내 ##\n\n# later\n")
    (tmp_path / "b.md").write_text("no heading #here\n")
    assert [document.title for document in documents(tmp_path)] == ["배송 안내", "b"]


def test_a_page_gives_its_visible_text_with_lines_where_blocks_end(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        "<title>반품 &amp; 교환</title><style>p{}</style><nav>메뉴</nav><main><h1>안내</h1><p>7일 <b>안</b>에\n 됩니다."
        "<br>예외: <script>x()</script></p><ul><li>베개<li>식품</ul></main><footer>© 별담</footer>"
    )
    (tmp_path / "b.html").write_text("<h1>제목</h1>내용")
    first, second = documents(tmp_path)
    assert (first.title, first.text) == ("반품 & 교환", "안내\n7일 안에 됩니다.\n예외:\n베개\n식품")
    assert (second.title, second.text) == ("제목", "제목\n내용")


def test_a_page_is_read_in_the_encoding_that_it_names(tmp_path: Path) -> None:
    page = '<meta http-equiv="Content-Type" content="text/html; charset=euc-kr"><p>펲시 한 똠방각하</p>'
    (tmp_path / "a.html").write_bytes(page.encode("cp949"))
    assert documents(tmp_path)[0].text == "펲시 한 똠방각하"


def test_a_file_in_another_encoding_is_named_and_read_once_it_is_known(tmp_path: Path) -> None:
    for name in ("a.txt", "b.csv", "c.html"):
        (tmp_path / name).write_bytes("text\n한글입니다\n".encode("cp949"))
    told = problems(tmp_path)
    assert len(told) == 3
    assert all("is not utf-8 (it has the byte 0xc7)" in line and "--encoding, cp949" in line for line in told)
    assert "한글입니다" in documents(tmp_path, Reading(encoding="cp949"))[1].text


def test_a_file_without_text_or_too_large_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LARGEST_FILE", 10)
    (tmp_path / "a.txt").write_text(" \n")
    (tmp_path / "b.md").write_text("x" * 11)
    (tmp_path / "c.html").write_text("<p> </p>")
    told = problems(tmp_path)
    assert ["there is no text" in line for line in told] == [True, False, True]
    assert "b.md:None: has 11 bytes, more than the 10" in told[1]


# Files with a document a line


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("\n".join(record if isinstance(record, str) else json.dumps(record) for record in records))
    return path


def test_a_line_of_json_is_a_document_and_its_other_fields_are_metadata(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        {"id": 7, "title": "T", "text": "x", "lang": "ko", "metadata": {"n": 1}, "source": "s"},
        "",
        {"content": "y", "url": "https://example.com/"},
    )
    first, second = documents(path)
    assert (first.id, first.title, first.text, first.source, first.metadata) == (
        "7",
        "T",
        "x",
        "s",
        {"n": 1, "lang": "ko"},
    )
    assert (second.id, second.text, second.source, second.origin.line) == ("a.jsonl#3", "y", "https://example.com/", 3)


def test_fields_can_be_named_and_several_texts_are_joined(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"no": 3, "q": "질문?", "a": "답.", "text": "t", "head": "H"}, {"no": 4})
    reading = Reading(Fields(("q", "a"), "head", "no"))
    assert isinstance(first := entries(path, reading)[0], Document)
    assert (first.id, first.title, first.text, first.metadata) == ("3", "H", "질문?\n\n답.", {"text": "t"})
    assert problems(path, reading) == ["a.jsonl:2: q and a: empty"]


def test_a_line_that_is_no_document_is_named_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "LONGEST_LINE", 100)
    path = write_lines(
        tmp_path / "a.jsonl", "{broken", [1], {"text": 7}, {"id": [], "text": "x"}, {"name": "x"}, {"text": "x" * 250},
        {"text": "x", "metadata": 7}, {"text": "good"}, {"id": 1, "payload": {"text": "x"}}, "[" * 90,
    )  # fmt: skip
    told = problems(path)
    assert [line.split(": ")[0] for line in told] == [f"a.jsonl:{number}" for number in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
    assert "is not JSON" in told[0] and "is a list" in told[1] and "text is a number" in told[2]
    assert "id is a list, expected a text or a number" in told[3]
    assert "found: name" in told[4] and "--text-field" in told[4]
    assert "longer than 100" in told[5] and "metadata is a number" in told[6] and "--format qdrant" in told[7]
    assert [entry.text for entry in entries(path) if isinstance(entry, Document)] == ["good"]


def test_points_of_qdrant_keep_their_id_and_leave_their_vector(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "points.jsonl",
        {"id": 12, "vector": [0.1], "payload": {"page_content": "반품", "metadata": {"lang": "ko"}, "page": 3}},
        {"id": "b7a0c6de-3ad2-4b43-8e7c-f0a2a2f4a9d0", "payload": {"text": "배송", "title": "T", "doc_id": "d"}},
        {"id": 1, "vector": [0.1]},
    )
    (tmp_path / "beside.txt").write_text("not one")
    first, second, third = entries(tmp_path, format="qdrant")
    assert isinstance(first, Document) and isinstance(second, Document) and isinstance(third, Problem)
    assert (first.id, first.text, first.metadata) == ("12", "반품", {"lang": "ko", "page": 3})
    assert (second.id, second.title, second.metadata) == ("b7a0c6de-3ad2-4b43-8e7c-f0a2a2f4a9d0", "T", {"doc_id": "d"})
    assert "payload is missing" in third.reason
    by_field = entries(tmp_path, Reading(Fields(id="doc_id")), "qdrant")[1]
    assert isinstance(by_field, Document) and by_field.id == "d"


def test_documents_of_meilisearch_leave_what_it_computed(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "export.jsonl",
        {"sku": "A-1", "name": "램프", "body": "침실용", "_geo": {"lat": 1}, "_vectors": {"default": [0.1]}},
    )
    document = documents(path, Reading(Fields(id="sku")), "meilisearch")[0]
    assert (document.id, document.title, document.text, document.metadata) == (
        "A-1", "램프", "침실용", {"_geo": {"lat": 1}},
    )  # fmt: skip


def test_rows_of_csv_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_bytes(
        '\ufeffid,title,text,lang\r\n1,반품,"여러 줄,\r\n""따옴표""",ko\r\n\r\n,배송,3일,\r\n2,too,many,values,here\r\n'
        "3,no text,,en\r\n".encode()
    )
    first, second, third, fourth = entries(path)
    assert isinstance(first, Document) and isinstance(second, Document)
    assert (first.id, first.title, first.text, first.metadata) == ("1", "반품", '여러 줄,\r\n"따옴표"', {"lang": "ko"})
    assert (second.id, second.metadata) == ("faq.csv#5", {})
    assert problems(path)[0] == "faq.csv:6: has 5 values for the 4 columns id, title, text, lang"
    assert problems(path)[1].startswith("faq.csv:7: there is no text")
    assert isinstance(third, Problem) and isinstance(fourth, Problem)


def test_csv_that_is_broken_or_separated_otherwise_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,good\n2,"never closed\n')
    told = problems(tmp_path / "a.csv")
    assert told[0].startswith("a.csv:3: is not CSV, and the rest of the file is not read")
    (tmp_path / "b.csv").write_text("id;text\n1;좋아요\n")
    assert "found: id;text" in problems(tmp_path / "b.csv")[0]
    assert documents(tmp_path / "b.csv", Reading(delimiter=";"))[0].text == "좋아요"


def test_reading_tells_every_byte_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", *({"text": "글" * 1000} for _ in range(50)))
    (tmp_path / "b.txt").write_text("x")
    for file in find([tmp_path]).files:
        told: list[int] = []
        list(read(file, Reading(), told.append))
        assert sum(told) == file.path.stat().st_size


def test_a_file_is_not_held_in_memory(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", *({"text": "x" * 1000} for _ in range(2000)))
    told: list[int] = []
    entry = next(read(find([tmp_path]).files[0], Reading(), told.append))
    assert isinstance(entry, Document)
    assert sum(told) < 100_000
