"""A file of the sample corpus that is broken is named, with the line."""

from pathlib import Path

import pytest

from jsonl import read_jsonl
from onebox.client import OneboxError


def test_a_broken_line_of_a_corpus_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n\n{"id": \n')
    with pytest.raises(OneboxError, match=r"rows\.jsonl, line 3: not JSON"):
        read_jsonl(path)
    path.write_text("[1]\n")
    with pytest.raises(OneboxError, match="line 1: expected an object, found list"):
        read_jsonl(path)
    path.write_text("\n")
    with pytest.raises(OneboxError, match="holds no line"):
        read_jsonl(path)
