"""Tokenizers in less memory: the library keeps a Unigram vocabulary in a trie, 230 MB for 250,000 pieces.

The pieces of a word are found here instead, by the library's arithmetic and with its choice between equals, so that
tokens and offsets are the same. Normalisation, special tokens, offsets and IDs stay the library's.
"""

import json
from collections.abc import Iterator
from functools import lru_cache

from tokenizers import NormalizedString, PreTokenizedString, Tokenizer
from tokenizers.pre_tokenizers import PreTokenizer, Sequence

# What a model may say of itself to be taken over; sampling and byte pieces are left to the library.
UNDERSTOOD = {"type", "vocab", "unk_id", "byte_fallback"}
UNKNOWN_PENALTY = 10.0  # an unknown character scores so much less than the least piece
WORDS_KEPT = 20_000  # whose cuts are remembered, some 6 MB
LONGEST_KEPT = 64  # characters of such a word
SLICED_AT_ONCE = 16  # pieces: a slice takes as long as what lies before it, so longer words are halved first


def load_tokenizer(content: str) -> Tokenizer:
    """The tokenizer that `content`, a tokenizer.json, describes. It can encode but not be saved.

    Raises what the library raises, or ValueError, KeyError or TypeError, where it describes none.
    """
    description = json.loads(content)
    model = description["model"]
    if model.get("type") != "Unigram" or model.keys() - UNDERSTOOD or model.get("byte_fallback"):
        return Tokenizer.from_str(content)
    if model.get("unk_id") is None:
        return Tokenizer.from_str(content)
    pieces = model["vocab"]
    unknown = pieces[model["unk_id"]][0]
    numbers = {piece: number for number, (piece, _) in enumerate(pieces)}
    description["model"] = {"type": "WordLevel", "vocab": numbers, "unk_token": unknown}
    tokenizer = Tokenizer.from_str(json.dumps(description, ensure_ascii=False))
    cutter = PreTokenizer.custom(_Cutter(dict(pieces), unknown))
    before = tokenizer.pre_tokenizer
    tokenizer.pre_tokenizer = cutter if before is None else Sequence([before, cutter])
    return tokenizer


class _Cutter:
    """Cuts words into their most probable pieces, the last step before IDs are looked up."""

    def __init__(self, scores: dict[str, float], unknown: str) -> None:
        self._scores = scores
        self._unknown = unknown
        self._unknown_score = min(scores.values()) - UNKNOWN_PENALTY
        self._longest: dict[str, int] = {}  # characters of a piece, by its first one
        for piece in filter(None, scores):
            self._longest[piece[0]] = max(len(piece), self._longest.get(piece[0], 0))
        self._remembered = lru_cache(WORDS_KEPT)(self._cut)

    def pre_tokenize(self, text: PreTokenizedString) -> None:
        """What the library calls for each text."""
        text.split(self._split)

    def _split(self, _: int, word: NormalizedString) -> list[NormalizedString]:
        characters = word.normalized
        ends = self._remembered(characters) if len(characters) <= LONGEST_KEPT else self._cut(characters)
        return [word] if len(ends) <= 1 else list(_slices(word, 0, ends))

    def _cut(self, word: str) -> tuple[int, ...]:
        """Where the pieces of a word end, in characters. Neighbouring unknown characters are one piece."""
        scores, longest, size = self._scores, self._longest, len(word)
        # Of the best way to each position: its score, where its last piece starts (-1: none yet), whether that is one.
        best, starts, known = [0.0] * (size + 1), [-1] * (size + 1), [True] * (size + 1)
        for start, first in enumerate(word):
            reached = best[start]
            for end in range(start + 1, min(size, start + longest.get(first, 0)) + 1):
                score = scores.get(word[start:end])
                # Of equal ways the one found first stays.
                if score is not None and (starts[end] < 0 or reached + score > best[end]):
                    best[end], starts[end], known[end] = reached + score, start, True
            if first not in scores:
                end, total = start + 1, reached + self._unknown_score
                if starts[end] < 0 or total > best[end]:
                    best[end], starts[end], known[end] = total, start, False
        ends: list[int] = []
        end, fusing = size, False
        while end > 0:
            unknown = not known[end] or word[starts[end] : end] == self._unknown
            if not (unknown and fusing):
                ends.append(end)
            end, fusing = starts[end], unknown
        return tuple(reversed(ends))


def _slices(word: NormalizedString, offset: int, ends: tuple[int, ...]) -> Iterator[NormalizedString]:
    """The pieces of `word`, whose first character is number `offset` of those that `ends` count."""
    if len(ends) > SLICED_AT_ONCE:
        middle = len(ends) // 2
        border = ends[middle - 1]
        yield from _slices(word[: border - offset], offset, ends[:middle])
        yield from _slices(word[border - offset :], border, ends[middle:])
        return
    start = 0
    for end in ends:
        yield word[start : end - offset]
        start = end - offset
