"""What a search may ask of metadata: {"field": value}, {"field": [values]}, {"field": {"gte": least, "lt": most}}."""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.errors import ApiError
from app.text_input import unusable
from store.filters import Filter

MOST_FIELDS = 16
MOST_VALUES = 100
LONGEST = 256  # characters of a field's name or of a text compared with
COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def parse(asked: Mapping[str, Any]) -> tuple[Filter, ...]:
    """The conditions, all of which hold. ApiError 400 that names the field which makes no sense.

    A list in the metadata fulfils a condition if one of its values does.
    """
    if len(asked) > MOST_FIELDS:
        raise _refused("filter", f"has {len(asked)} fields, the limit is {MOST_FIELDS}")
    return tuple(_filter(field, wanted) for field, wanted in asked.items())


def _filter(field: str, wanted: Any) -> Filter:
    where = f"filter.{field[:LONGEST]}"
    if not field or len(field) > LONGEST or unusable(field):
        raise _refused(where, f"is no name of a field: write 1 to {LONGEST} characters")
    if isinstance(wanted, dict):
        return _range(field, where, wanted)
    values = wanted if isinstance(wanted, list) else [wanted]
    if not 1 <= len(values) <= MOST_VALUES:
        raise _refused(where, f"has {len(values)} values, write 1 to {MOST_VALUES}")
    literals = [_literal(value, where) for value in values]
    return Filter(_path(field, " || ".join(f"@ == {literal}" for literal in literals)))


def _range(field: str, where: str, wanted: dict[str, Any]) -> Filter:
    unknown = sorted(set(wanted) - set(COMPARISONS))
    if unknown or not wanted:
        found = f"knows no {unknown[0][:LONGEST]!r}" if unknown else "is empty"
        raise _refused(where, f"{found}; a range has some of {', '.join(COMPARISONS)}")
    dates = [isinstance(value, str) for value in wanted.values()]
    if any(dates) and not all(dates):
        raise _refused(where, "compares with a number and with a date; write two of a kind")
    left = "@.datetime()" if any(dates) else "@"
    terms = [f"{left} {COMPARISONS[name]} {_bound(value, f'{where}.{name}')}" for name, value in sorted(wanted.items())]
    return Filter(_path(field, " && ".join(terms)), dated=any(dates))


def _bound(value: Any, where: str) -> str:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise _refused(
                where, "is neither a number nor a date; write 10, 2026-01-31 or 2026-01-31T09:00:00Z"
            ) from None
        # One way to write each, which jsonpath reads: a day alone, or a moment with seconds.
        text = moment.isoformat() if "T" in value.upper() or " " in value.strip() else moment.date().isoformat()
        return f'"{text}".datetime()'
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(where, "is neither a number nor a date; write 10, 2026-01-31 or 2026-01-31T09:00:00Z")
    return _literal(value, where)


def _literal(value: Any, where: str) -> str:
    """A value as jsonpath writes it, which is as JSON does."""
    if not isinstance(value, str | int | float | bool | None):
        raise _refused(where, f"compares with {type(value).__name__}; write texts, numbers, true, false or null")
    if isinstance(value, str) and (len(value) > LONGEST or unusable(value)):
        raise _refused(where, f"compares with a text that is longer than {LONGEST} characters or cannot be stored")
    if isinstance(value, float) and not math.isfinite(value):
        raise _refused(where, "compares with a number that is not finite")
    return json.dumps(value)


def _path(field: str, condition: str) -> str:
    return f"$.{json.dumps(field)} ? ({condition})"


def _refused(where: str, what: str) -> ApiError:
    return ApiError(400, f"{where} {what}.", param=where, code="invalid_filter")
