"""From a record (a line of JSON, a row of CSV) to a document."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TEXT_FIELDS = ("text", "content", "page_content", "document", "body")
TITLE_FIELDS = ("title", "name")
ID_FIELDS = ("id", "_id")
SOURCE_FIELDS = ("source", "url")


@dataclass(frozen=True)
class Origin:
    """Where a document was read; `line` (from 1) is that of its first line, None for a whole file."""

    file: Path
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True)
class Document:
    """What POST /documents takes, and its origin."""

    origin: Origin
    id: str
    text: str
    title: str = ""
    source: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def line(self, metadata: Mapping[str, Any]) -> bytes:
        """The document as a line of JSON, with some more metadata. ValueError if it cannot be written as UTF-8."""
        content = {"id": self.id, "title": self.title, "text": self.text, "source": self.source}
        return json.dumps(content | {"metadata": {**self.metadata, **metadata}}, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Problem:
    """Something that is no document, and why."""

    origin: Origin
    reason: str


@dataclass(frozen=True)
class Fields:
    """Names of the fields that make up a document; None stands for the usual names, of which the first counts.

    Several `texts` are joined, a blank line between them.
    """

    texts: Sequence[str] | None = None
    title: str | None = None
    id: str | None = None


class RecordError(Exception):
    """A record is no document; the message says why."""


def document_of(record: Mapping[str, Any], fields: Fields, origin: Origin, name: str) -> Document:
    """The document in a record; what is not id, title, text or source becomes metadata. RecordError if there is none.

    `name` is the file's, for records without an id or a source of their own.
    """
    rest = dict(record)
    text = _text(rest, fields.texts)
    title = _take(rest, fields.title, TITLE_FIELDS, str)
    identity = _take(rest, fields.id, ID_FIELDS, str | int)
    source = _take(rest, None, SOURCE_FIELDS, str)
    nested = rest.pop("metadata", None)
    if nested is not None and not isinstance(nested, dict):
        raise RecordError(f"metadata is {kind(nested)}, expected an object")
    if identity in (None, ""):
        identity = f"{name}#{origin.line}"
    return Document(origin, str(identity), text, title or "", source or name, {**(nested or {}), **rest})


def qdrant(record: Mapping[str, Any], fields: Fields) -> Mapping[str, Any]:
    """A point of Qdrant: its payload, under its id unless another field is the id. The vectors are not used."""
    payload = record.get("payload")
    if not isinstance(payload, dict):
        raise RecordError(f"payload is {kind(payload)}, expected an object: a line is {{'id': …, 'payload': {{…}}}}")
    return payload if fields.id else {**payload, "id": record.get("id")}


def meilisearch(record: Mapping[str, Any], _: Fields) -> Mapping[str, Any]:
    """A document of Meilisearch without what it computed itself (_vectors, _formatted and the like)."""
    return {name: value for name, value in record.items() if not name.startswith("_") or name in ("_id", "_geo")}


def kind(value: Any) -> str:
    """A value's type as JSON calls it."""
    names = {type(None): "missing", bool: "true or false", int: "a number", float: "a number", str: "a text"}
    return names.get(type(value), "a list" if isinstance(value, list) else "an object")


def _text(rest: dict[str, Any], names: Sequence[str] | None) -> str:
    wanted = names or [next((name for name in TEXT_FIELDS if rest.get(name) is not None), "")]
    if wanted == [""]:
        hint = "; for Qdrant's points give --format qdrant" if isinstance(rest.get("payload"), dict) else ""
        found = ", ".join(rest) or "nothing"
        raise RecordError(
            f"there is no text: no field is called {', '.join(TEXT_FIELDS)} (found: {found}); "
            f"name the one that holds it with --text-field{hint}"
        )
    parts = []
    for name in wanted:
        value = rest.pop(name, None)
        if value is None and len(wanted) > 1:
            continue
        if not isinstance(value, str):
            raise RecordError(f"{name} is {kind(value)}, expected a text")
        parts.append(value)
    text = "\n\n".join(part for part in parts if part.strip())
    if not text:
        raise RecordError(f"{' and '.join(wanted)}: empty")
    return text


def _take(rest: dict[str, Any], name: str | None, usual: Sequence[str], expected: Any) -> Any:
    """The value of a field, which leaves the rest. None where it is missing and was not named."""
    found = name or next((candidate for candidate in usual if rest.get(candidate) is not None), None)
    if found is None:
        return None
    value = rest.pop(found, None)
    if isinstance(value, bool) or not isinstance(value, expected):
        raise RecordError(f"{found} is {kind(value)}, expected a text{' or a number' if expected is not str else ''}")
    return value
