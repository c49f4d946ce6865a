"""Checks that every text from outside passes before anything computes with it."""

from collections.abc import Sequence
from typing import Any

from app.errors import ApiError


def check_text(text: str, param: str, *, most: int, empty_allowed: bool = False) -> str:
    """The text itself. ApiError 400 when it is blank or cannot be stored, 413 above `most` characters."""
    if not empty_allowed and not text.strip():
        raise ApiError(400, f"{param} is empty.", param=param, code="empty")
    if len(text) > most:
        raise ApiError(413, f"{param} has {len(text)} characters, the limit is {most}.", param=param, code="too_long")
    problem = unusable(text)
    if problem:
        raise ApiError(400, f"{param} {problem}.", param=param, code="invalid_text")
    return text


def check_count(items: Sequence[Any], param: str, *, most: int) -> None:
    """ApiError 400 for none, 413 for more than `most`."""
    if not items:
        raise ApiError(400, f"{param} is empty.", param=param, code="empty")
    if len(items) > most:
        raise ApiError(413, f"{param} has {len(items)} entries, the limit is {most}.", param=param, code="too_many")


def unusable(value: Any) -> str | None:
    """Why a text, or a JSON value with texts in it, cannot be stored; None if it can."""
    if isinstance(value, dict):
        return unusable(list(value.keys()) + list(value.values()))
    if isinstance(value, list):
        return next((problem for entry in value if (problem := unusable(entry))), None)
    if isinstance(value, str):
        if "\x00" in value:
            return "contains the character U+0000"
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            return "contains half of a surrogate pair"
    return None


def check_model(asked: str | None, name: str | None, release: str) -> str | None:
    """The role (query, passage) that an alias such as NAME:query names, else None. ApiError 404 for another model."""
    if not asked:
        return None
    base, _, role = asked.rpartition(":")
    known = {name, release} - {None, ""}
    if base in known and role in ("query", "passage"):
        return role
    if asked in known or not known:
        return None
    raise ApiError(
        404,
        f"The model {asked[:100]!r} is not served here; {name or release!r} is.",
        param="model",
        code="model_not_found",
    )
