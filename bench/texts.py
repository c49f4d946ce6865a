"""The texts that are measured: cut and joined from the repository's own Korean and English, the same on every run."""

import json
import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LANGUAGES = ("ko", "en")
SHORTEST, LONGEST = 3, 284  # tokens, special tokens included
MEDIAN, SPREAD = 33, 0.95  # of the log-normal distribution that lengths of real passages follow roughly
QUERY_TOKENS = (8, 12)
SPECIAL_TOKENS = 2
ATTEMPTS = 40


@dataclass(frozen=True)
class Material:
    """Running text and real questions by language."""

    passages: dict[str, str]
    queries: dict[str, list[str]]


def mixed_lengths(count: int, *, median: float = MEDIAN, shortest: int = SHORTEST, longest: int = LONGEST) -> list[int]:
    """`count` lengths in tokens: the quantiles of a log-normal distribution, cut at both ends."""
    normal = statistics.NormalDist(0.0, SPREAD)
    quantiles = [(index + 0.5) / count for index in range(count)]
    drawn = [median * math.exp(normal.inv_cdf(quantile)) for quantile in quantiles]
    lengths = [min(max(round(length), shortest), longest) for length in drawn]
    # The ends are part of what is promised.
    return [shortest, *lengths[1:-1], longest]


def every_length(count: int, longest: int) -> list[int]:
    """`count` lengths, mostly short, with each of 1..`longest` at least once; in a shuffled order."""
    lengths = list(range(1, longest + 1)) + mixed_lengths(count - longest, median=16, longest=longest)
    random.Random(20).shuffle(lengths)
    return lengths


def describe(lengths: Sequence[int]) -> dict[str, float]:
    """Count, smallest, mean, median, 95th percentile and largest of lengths in tokens."""
    ordered = sorted(lengths)
    return {
        "count": len(ordered),
        "min": ordered[0],
        "mean": round(statistics.fmean(ordered), 1),
        "median": statistics.median(ordered),
        "p95": ordered[int(0.95 * (len(ordered) - 1))],
        "max": ordered[-1],
    }


def padding_share(lengths: Sequence[int], batch: int) -> float:
    """Share of what is computed that is padding, where batches are taken in order and padded to their longest."""
    batches = [lengths[start : start + batch] for start in range(0, len(lengths), batch)]
    return 1 - sum(lengths) / sum(len(taken) * max(taken) for taken in batches)


def read_material(corpus: Path, faq: Path) -> Material:
    """Text of the sample corpus (`corpus`/*.jsonl) and of the build's questions and answers (`faq`/*.jsonl)."""
    passages: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    queries: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    for row in _rows([*sorted(corpus.glob("*.jsonl")), *sorted(faq.glob("*.jsonl"))]):
        if text := row.get("text") or row.get("passage"):
            passages[row["language"]].append(text)
        asked = row.get("queries") or [row.get("query")]
        queries[row["language"]] += [query for query in asked if query]
    return Material({language: " ".join(texts) for language, texts in passages.items()}, queries)


def _rows(files: Iterable[Path]) -> Iterable[dict[str, Any]]:
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


class TextMaker:
    """Cuts texts of a wanted number of tokens out of running text."""

    def __init__(self, material: Material, tokenizer: Any) -> None:
        """`tokenizer` is a tokenizers.Tokenizer without truncation and padding."""
        self._tokenizer = tokenizer
        self._text = material.passages
        self._starts = {language: self._word_starts(text) for language, text in self._text.items()}
        self._at = dict.fromkeys(LANGUAGES, 0)

    def _word_starts(self, text: str) -> list[int]:
        """Where a text may be cut: the character at which each token starts, the end of the text last."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return sorted({start for start, _ in encoding.offsets} | {len(text)})

    def tokens(self, text: str) -> int:
        """Tokens of a text, special tokens included."""
        return len(self._tokenizer.encode(text).ids)

    def make(self, lengths: Sequence[int], *, seed: int = 7) -> list[str]:
        """One text a length, every other one Korean, in an order shuffled by `seed`."""
        texts = [self.cut(length, LANGUAGES[index % len(LANGUAGES)]) for index, length in enumerate(lengths)]
        random.Random(seed).shuffle(texts)
        return texts

    def cut(self, length: int, language: str) -> str:
        """A text of about `length` tokens, special tokens included: pieces tokenise differently alone."""
        wanted = max(1, length - SPECIAL_TOKENS)
        nearest, distance = "", wanted
        for _ in range(ATTEMPTS):
            text = self._piece(wanted, language)
            off = abs(self.tokens(text) - SPECIAL_TOKENS - wanted)
            if not nearest or off < distance:
                nearest, distance = text, off
            if not off:
                break
        return nearest

    def _piece(self, tokens: int, language: str) -> str:
        starts, text = self._starts[language], self._text[language]
        first = self._at[language]
        if first + tokens >= len(starts):
            first = self._at[language] = 0
        # An odd step: the next piece begins elsewhere, also when the text has been used up.
        self._at[language] += tokens + 1
        return text[starts[first] : starts[min(first + tokens, len(starts) - 1)]].strip()


def short_queries(material: Material, maker: TextMaker, prefix: str) -> list[str]:
    """Real questions of 8 to 12 tokens as the model sees them, Korean and English in turns."""
    found = [
        [text for text in dict.fromkeys(material.queries[language]) if _is_short(maker.tokens(prefix + text))]
        for language in LANGUAGES
    ]
    return [text for pair in zip(*found, strict=False) for text in pair]


def _is_short(tokens: int) -> bool:
    return QUERY_TOKENS[0] <= tokens <= QUERY_TOKENS[1]
