"""Where sentences end, in Korean and in English."""

import re

# After closing punctuation; after a Korean final ending even where the writer left the full stop out; at line ends.
# No alternative begins with a repetition: a million spaces must not take a million steps each.
_BORDER = re.compile(
    r"""
      (?<=[.!?…])["'”’)\]]*\s+
    | (?<=[。！？])["'”’」』)\]]*\s*
    | (?:(?<=니다)|(?<=세요)|(?<=어요)|(?<=아요)|(?<=해요)|(?<=예요)|(?<=에요)|(?<=네요)|(?<=까요)|(?<=지요))[ \t]+
    | \n\s*
    """,
    re.VERBOSE,
)
# A full stop here ends no sentence.
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|no|mr|mrs|ms|dr|st|approx|fig)|\b[A-Z]|(?:^|\n)\s*\d+)\.$", re.IGNORECASE
)
_LONGEST_ABBREVIATION = 12


def split(text: str) -> list[tuple[int, int]]:
    """Spans (start, end) in characters, in order, without surrounding white space; together they hold every word."""
    spans = []
    start = 0
    for border in _BORDER.finditer(text):
        if _is_abbreviation(text, border.start()) and "\n" not in border.group():
            continue
        spans.append((start, border.end()))
        start = border.end()
    spans.append((start, len(text)))
    return [span for first, last in spans if (span := _trim(text, first, last))]


def _is_abbreviation(text: str, end: int) -> bool:
    return _ABBREVIATION.search(text[max(0, end - _LONGEST_ABBREVIATION) : end]) is not None


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    piece = text[start:end]
    stripped = piece.strip()
    if not stripped:
        return None
    start += len(piece) - len(piece.lstrip())
    return start, start + len(stripped)
