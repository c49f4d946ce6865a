"""Lines of JSON, as the sample corpus comes in."""

import json
from pathlib import Path
from typing import Any

from onebox.client import OneboxError


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file, empty lines left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OneboxError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise OneboxError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise OneboxError(f"{path}, line {number}: expected an object, found {type(row).__name__}")
        rows.append(row)
    if not rows:
        raise OneboxError(f"{path} holds no line: expected one JSON object a line")
    return rows
