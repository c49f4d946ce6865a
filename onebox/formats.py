"""What a file holds: one document, or one a line or row. Nothing is kept in memory but the document at hand."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, TextIO

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector

from onebox.files import File
from onebox.records import Document, Fields, Origin, Problem, RecordError, document_of, kind, meilisearch, qdrant

LARGEST_FILE = 64 * 1024 * 1024  # bytes, of one that is a document as a whole
LONGEST_LINE = 16 * 1024 * 1024  # characters
INVISIBLE = ("script", "style", "noscript", "template", "svg", "nav")
# After these a line ends; what is between others belongs together.
BLOCKS = [
    *("address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "fieldset", "figcaption", "figure"),
    *("footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "ol", "p", "pre"),
    *("section", "table", "td", "th", "tr", "ul"),
]
# As browsers read these names: pages that say so use the letters of the larger one.
LARGER = {"euc-kr": "cp949", "ks_c_5601-1987": "cp949", "ksc5601": "cp949", "iso-8859-1": "cp1252"}

Read = Iterator[Document | Problem]


@dataclass(frozen=True)
class Reading:
    """How to read: which fields of a record count, the files' encoding, and what separates the columns of CSV.

    Without an encoding files are UTF-8, and pages in what they say themselves.
    """

    fields: Fields = field(default_factory=Fields)
    encoding: str | None = None
    delimiter: str = ","


def read(file: File, reading: Reading, advance: Callable[[int], object] = lambda _: None) -> Read:
    """A file's documents, and what in it is none, in its order.

    `advance` is told the bytes read since it was called last.
    """
    readers = {"text": _text, "markdown": _markdown, "html": _html, "csv": _csv}
    told = 0
    try:
        with file.path.open("rb") as content:
            for entry in readers.get(file.format, _jsonl)(file, content, reading):
                advance(content.tell() - told)
                told = content.tell()
                yield entry
    except OSError as error:
        yield Problem(Origin(file.path), f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        yield Problem(
            Origin(file.path),
            f"is not {error.encoding} (it has the byte 0x{error.object[error.start]:02x}), and what follows is not "
            "read: name its encoding with --encoding, cp949 for files of Korean Windows and Excel",
        )
    except LookupError as error:
        yield Problem(Origin(file.path), f"{error}: name its encoding with --encoding")
    advance(file.size - told)


def _text(file: File, content: BinaryIO, reading: Reading) -> Read:
    if (raw := _whole(content)) is None:
        yield _too_large(file)
    else:
        yield _one(file, "", raw.decode(_codec(reading)))


def _markdown(file: File, content: BinaryIO, reading: Reading) -> Read:
    if (raw := _whole(content)) is None:
        yield _too_large(file)
    else:
        text = raw.decode(_codec(reading))
        yield _one(file, _first_heading(text), text)


def _html(file: File, content: BinaryIO, reading: Reading) -> Read:
    """The visible text, of <main> where the page has one."""
    if (raw := _whole(content)) is None:
        yield _too_large(file)
        return
    declared = (EncodingDetector.find_declared_encoding(raw, is_html=True) or "utf-8").lower()
    page = BeautifulSoup(raw.decode(_codec(reading, LARGER.get(declared, declared))), "html.parser")
    heading = page.title or page.find("h1")
    title = heading.get_text() if heading else ""
    for element in page(INVISIBLE):
        element.decompose()
    body = page.find("main") or page.body or page
    for string in body.find_all(string=True):
        if string.find_parent("pre") is None:
            string.replace_with(" ".join(string.split("\n")))
    for element in body("br"):
        element.replace_with("\n")
    for element in body(BLOCKS):
        element.insert_before("\n")
        element.append("\n")
    lines = (" ".join(line.split()) for line in body.get_text().splitlines())
    yield _one(file, " ".join(title.split()), "\n".join(line for line in lines if line))


def _jsonl(file: File, content: BinaryIO, reading: Reading) -> Read:
    for number, line in _lines(io.TextIOWrapper(content, _codec(reading), newline="\n")):
        origin = Origin(file.path, number)
        if not line.strip():
            continue
        try:
            yield _record(file, line, origin, reading.fields)
        except RecordError as error:
            yield Problem(origin, str(error))


def _record(file: File, line: str, origin: Origin, fields: Fields) -> Document:
    if len(line) > LONGEST_LINE:
        raise RecordError(f"the line is longer than {LONGEST_LINE} characters")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise RecordError(f"is {kind(record)}, expected an object")
    exports = {"qdrant": qdrant, "meilisearch": meilisearch}
    if file.format in exports:
        record = exports[file.format](record, fields)
    return document_of(record, fields, origin, file.name)


def _csv(file: File, content: BinaryIO, reading: Reading) -> Read:
    """The first row names the columns. A value is a text, an empty one is left out."""
    csv.field_size_limit(LONGEST_LINE)
    lines = io.TextIOWrapper(content, _codec(reading), newline="")
    rows = csv.reader((line for _, line in _lines(lines)), delimiter=reading.delimiter, strict=True)
    columns: list[str] = []
    before = 0
    try:
        for row in rows:
            origin, before = Origin(file.path, before + 1), rows.line_num
            if not row:
                continue
            if not columns:
                columns = [name.strip() for name in row]
            elif len(row) != len(columns):
                yield Problem(origin, f"has {len(row)} values for the {len(columns)} columns {', '.join(columns)}")
            else:
                record = {name: value for name, value in zip(columns, row, strict=True) if value.strip()}
                try:
                    yield document_of(record, reading.fields, origin, file.name)
                except RecordError as error:
                    yield Problem(origin, str(error))
    except csv.Error as error:
        yield Problem(Origin(file.path, before + 1), f"is not CSV, and the rest of the file is not read: {error}")


def _lines(content: TextIO) -> Iterator[tuple[int, str]]:
    """(number, line); of a line longer than LONGEST_LINE only so much that it can be seen to be."""
    number = 0
    while line := content.readline(LONGEST_LINE + 1):
        number += 1
        yield number, line
        while len(line) > LONGEST_LINE and not line.endswith("\n"):
            line = content.readline(LONGEST_LINE + 1)


def _whole(content: BinaryIO) -> bytes | None:
    raw = content.read(LARGEST_FILE + 1)
    return raw if len(raw) <= LARGEST_FILE else None


def _too_large(file: File) -> Problem:
    return Problem(
        Origin(file.path), f"has {file.size} bytes, more than the {LARGEST_FILE} that make one document: split it"
    )


def _one(file: File, title: str, text: str) -> Document | Problem:
    origin = Origin(file.path)
    if not text.strip():
        return Problem(origin, "there is no text in it")
    return Document(origin, file.name, text, title or file.path.stem, file.name)


def _first_heading(markdown: str) -> str:
    """The first heading that is not in a block of code."""
    fenced = False
    for line in markdown.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced and line.startswith("#") and (title := line.strip("# \t")):
            return title
    return ""


def _codec(reading: Reading, declared: str = "utf-8") -> str:
    """Notepad and Excel begin UTF-8 with a mark that belongs to no text."""
    encoding = reading.encoding or declared
    return "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
