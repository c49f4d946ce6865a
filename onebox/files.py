"""Which files there are at some paths, what they hold, and the names that make their documents' ids."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onebox.client import OneboxError

FORMATS = ("text", "markdown", "html", "jsonl", "csv", "qdrant", "meilisearch")
SUFFIXES = {
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}


@dataclass(frozen=True)
class File:
    """A file as its user writes it, the name that its documents' ids are made of, what it holds, and its bytes."""

    path: Path
    name: str
    format: str
    size: int


@dataclass
class Found:
    """The files to read, and how many of each other suffix were left out."""

    files: list[File] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def find(paths: Iterable[Path], *, root: Path | None = None, format: str | None = None) -> Found:
    """The files at `paths`: of folders all below them, in the order of their names, hidden ones left out.

    A file's name is its path below `root`, by default below the folder that holds the path given. `format` says what
    the files hold whose suffix is not enough, or says it wrong. OneboxError for a path that cannot be read, is not
    below `root`, or whose format nobody knows.
    """
    found = Found()
    for path in paths:
        try:
            resolved = path.resolve(strict=True)
            base = root.resolve(strict=True) if root else resolved.parent
        except OSError as error:
            raise OneboxError(f"{error.filename} cannot be read: {error.strerror}") from None
        if not resolved.is_relative_to(base):
            raise OneboxError(f"{path} is not below --root {root}: give a folder that holds it")
        if resolved.is_dir():
            for below in _walk(resolved):
                if kind := _format_below(below, format):
                    found.files.append(_file(path / below.relative_to(resolved), below, base, kind))
                else:
                    found.others[below.suffix.lower() or "no suffix"] += 1
        else:
            found.files.append(_file(path, resolved, base, format or _format_of(path)))
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(place, name)


def _format_of(path: Path) -> str:
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise OneboxError(
            f"{path} ends with none of {', '.join(SUFFIXES)}: say what it holds with --format ({', '.join(FORMATS)})"
        ) from None


def _format_below(path: Path, format: str | None) -> str | None:
    """What a file of a folder holds, None if it is left out. Exports are the lines of JSON among them."""
    by_suffix = SUFFIXES.get(path.suffix.lower())
    if format in ("qdrant", "meilisearch"):
        return format if by_suffix == "jsonl" else None
    return by_suffix if format in (None, by_suffix) else None


def _file(shown: Path, resolved: Path, base: Path, format: str) -> File:
    # Some systems spell Korean names in single letters; the same file has the same id everywhere.
    name = unicodedata.normalize("NFC", resolved.relative_to(base).as_posix())
    return File(shown, name, format, resolved.stat().st_size)
