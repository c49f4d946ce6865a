"""Conditions on documents' metadata, as SQL."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql


@dataclass(frozen=True)
class Filter:
    """A path that exists in the metadata of the documents wanted. `dated` if it compares dates: no index helps then."""

    path: str
    dated: bool = False


def condition(filters: Sequence[Filter]) -> tuple[sql.Composable, dict[str, str]]:
    """What a row of `documents` must fulfil, and the parameters in it."""
    parts: list[sql.Composable] = [sql.SQL("true")]
    for number, entry in enumerate(filters):
        value = f"%(filter_{number})s::jsonpath"
        # Dates with and without a time zone can be compared by the function only, not by the operator.
        parts.append(
            sql.SQL(f"jsonb_path_exists_tz(documents.metadata, {value}, '{{}}', true)")
            if entry.dated
            else sql.SQL(f"documents.metadata @? {value}")
        )
    return sql.SQL(" AND ").join(parts), {f"filter_{number}": entry.path for number, entry in enumerate(filters)}
