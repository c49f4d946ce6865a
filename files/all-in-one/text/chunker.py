"""Texts cut into chunks that the model reads whole: counted in its own tokens, cut between sentences."""

from dataclasses import dataclass
from typing import Any, Protocol

from text import sentences

# Part of every generation: another version of the chunker cuts differently, so documents are cut again.
VERSION = "sentences-256-1"
TARGET_TOKENS = 256  # of text per chunk; longer ones blur several topics into one vector
OVERLAP_TOKENS = 40  # repeated from the chunk before, in whole sentences
TITLE_TOKENS = 48  # a longer title is left out of the passage


class Model(Protocol):
    """What the chunker asks of an embedder."""

    @property
    def tokenizer(self) -> Any: ...

    @property
    def max_length(self) -> int: ...

    def count_tokens(self, text: str, *, input_type: str | None = None) -> int: ...


@dataclass(frozen=True)
class Chunk:
    """`text` is document[start:end] (characters); `tokens` are the model's, without prefix and special tokens."""

    start: int
    end: int
    text: str
    tokens: int


@dataclass(frozen=True)
class _Piece:
    """A sentence, or the part of one that is too long; `first` and `last` are positions in the token list."""

    start: int
    end: int
    first: int
    last: int

    @property
    def tokens(self) -> int:
        return self.last - self.first


class Chunker:
    """Cuts texts for one model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        reserved = model.count_tokens("", input_type="passage") + TITLE_TOKENS
        self._limit = max(8, min(TARGET_TOKENS, model.max_length - reserved))
        self._overlap = min(OVERLAP_TOKENS, self._limit // 6)

    def cut(self, text: str) -> list[Chunk]:
        """Chunks in order; every word of the text is in one of them. Empty for a text without a token."""
        offsets = self._offsets(text)
        pieces = self._pieces(text, offsets)
        chunks: list[Chunk] = []
        first = 0
        while first < len(pieces):
            after = self._fill(pieces, first)
            chunks.append(_chunk(text, pieces[first:after]))
            first = self._step_back(pieces, first, after)
        return chunks

    def passage(self, title: str, chunk_text: str) -> str:
        """What is embedded for a chunk: its text under the document's title, if that is short enough to leave room."""
        title = " ".join(title.split())
        if not title or chunk_text.startswith(title):
            return chunk_text
        tokens = len(self._model.tokenizer.encode(title, add_special_tokens=False).ids)
        return f"{title}\n{chunk_text}" if tokens < TITLE_TOKENS else chunk_text

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Character spans of the model's tokens, those without a character of their own left out."""
        encoding = self._model.tokenizer.encode(text, add_special_tokens=False)
        return [(start, end) for start, end in encoding.offsets if end > start]

    def _pieces(self, text: str, offsets: list[tuple[int, int]]) -> list[_Piece]:
        pieces = []
        token = 0
        for start, end in sentences.split(text):
            first = token
            while token < len(offsets) and offsets[token][0] < end:
                token += 1
            if token > first:
                pieces += self._divide(_Piece(start, end, first, token), offsets, text)
        return pieces

    def _divide(self, piece: _Piece, offsets: list[tuple[int, int]], text: str) -> list[_Piece]:
        """The piece itself, or, if it is too long for a chunk, parts of it, cut at white space where there is any."""
        parts = []
        while piece.tokens > self._limit:
            cut = self._cut_point(piece, offsets, text)
            border = offsets[cut][0]
            parts.append(_Piece(piece.start, border, piece.first, cut))
            piece = _Piece(border, piece.end, cut, piece.last)
        return [*parts, piece]

    def _cut_point(self, piece: _Piece, offsets: list[tuple[int, int]], text: str) -> int:
        furthest = piece.first + self._limit
        for token in range(furthest, piece.first + self._limit // 2, -1):
            start = offsets[token][0]
            if text[start].isspace() or text[start - 1].isspace():
                return token
        # Characters of several tokens (byte pieces) are kept whole.
        token = furthest
        while token > piece.first + 1 and offsets[token][0] < offsets[token - 1][1]:
            token -= 1
        return token

    def _fill(self, pieces: list[_Piece], first: int) -> int:
        """Position after the last piece that still fits into a chunk that begins with `first`."""
        after, tokens = first + 1, pieces[first].tokens
        while after < len(pieces) and tokens + pieces[after].tokens <= self._limit:
            tokens += pieces[after].tokens
            after += 1
        return after

    def _step_back(self, pieces: list[_Piece], first: int, after: int) -> int:
        """Where the next chunk begins: some whole sentences before `after`, never where it would hold nothing new."""
        if after >= len(pieces):
            return after
        begin, repeated = after, 0
        while begin - 1 > first and repeated + pieces[begin - 1].tokens <= self._overlap:
            begin -= 1
            repeated += pieces[begin].tokens
        fits = repeated + pieces[after].tokens <= self._limit
        return begin if fits else after


def _chunk(text: str, pieces: list[_Piece]) -> Chunk:
    start, end = pieces[0].start, pieces[-1].end
    return Chunk(start, end, text[start:end], sum(piece.tokens for piece in pieces))
