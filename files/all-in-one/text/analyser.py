"""Texts to lexemes, the words that a search compares: Korean morphemes, English stems, codes and numbers."""

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import snowballstemmer
from kiwipiepy import Kiwi, Token

# Part of every generation: another version gives other lexemes, so documents are analysed again.
VERSION = "kiwi-0.24-snowball-3-2"

# Korean tags that carry content: nouns, numerals, roots, verbs, adjectives, and determiners such as 새 or 모든.
CONTENT_TAGS = frozenset({"NNG", "NNP", "NR", "XR", "VV", "VA", "MAG"})
# Characters of a lexeme; what is longer (a key, a hash, encoded bytes) is told apart by its beginning.
LONGEST = 64
# Texts whose words are remembered for their highlights: the titles that searches find again and again.
REMEMBERED = 2048
# English words whose stems are remembered: the stemmer is slow, and a text's words are mostly those of other texts.
# Those longer than any lexeme are not: they may be as long as a text.
REMEMBERED_STEMS = 16384
NOUN_TAGS = frozenset({"NNG", "NNP"})
STOP = frozenset(
    word
    for line in (Path(__file__).parent / "stopwords.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for word in line.split()
)

# A code has letters and digits, or digits in groups: E-204, AB-1234, KX100, 070-1234-5678, v2.1.
_WORD = re.compile(
    r"(?P<code>(?=[A-Za-z0-9._/-]{0,40}[A-Za-z])(?=[A-Za-z0-9._/-]{0,40}\d)[A-Za-z0-9]+(?:[._/-][A-Za-z0-9]+)*"
    r"|\d+(?:-\d+)+)"
    r"|(?P<number>\d+(?:[.,]\d+)*)"
    r"|(?P<english>[^\W\d_가-힣ㄱ-ㆎᄀ-ᇿ一-鿿ぁ-ヿ]+(?:['’](?!s\b)[^\W\d_]+)?)"
)
_HANGUL = re.compile(r"[가-힣]")
_LATIN = re.compile(r"[a-z]+")
_CODE_SEPARATOR = re.compile(r"(?<=[a-z])[._/-](?=\d)|(?<=\d)[._/-](?=[a-z])")


class Word(NamedTuple):
    """A lexeme and where it stands: text[start:end], in characters."""

    lexeme: str
    start: int
    end: int


class Analyser:
    """Safe to use from several threads. Loading takes some 1.5 seconds of CPU and 300 MB."""

    def __init__(self) -> None:
        # Without the dictionary of multi-word names: half of the memory, half of the start.
        self._kiwi = Kiwi(num_workers=1, load_multi_dict=False)
        self._kiwi.tokenize("")  # builds the rest now, not at the first question
        self._stemmer = snowballstemmer.stemmer("english")
        self._stem = lru_cache(maxsize=REMEMBERED_STEMS)(self._stemmed)
        self._guard = threading.Lock()
        self._remembered = lru_cache(maxsize=REMEMBERED)(self.words)

    def words(self, text: str) -> tuple[Word, ...]:
        """The words of a text where they stand in it as it is, before it is normalised. Some of a compound overlap."""
        normal, starts, ends = _normalised(text)
        return tuple(
            Word(word.lexeme[:LONGEST], starts[word.start], ends[word.end - 1])
            for word in self._all(normal)
            if word.end > word.start
        )

    def lexemes(self, text: str) -> Counter[str]:
        """Lexemes with their counts. The same word gives the same lexeme in a question and in a document."""
        return Counter(word.lexeme for word in self.words(text))

    def highlights(self, text: str, lexemes: Collection[str]) -> list[tuple[int, int]]:
        """Where words of the text are among the lexemes: (start, end) in characters, in order, apart from each other.

        Analyses the text, some 10 microseconds a character of Korean; a chunk's places are stored with its lexemes.
        """
        merged: list[tuple[int, int]] = []
        for word in sorted(self._remembered(text), key=lambda word: word.start):
            if word.lexeme not in lexemes:
                continue
            if merged and word.start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], word.end))
            else:
                merged.append((word.start, word.end))
        return merged

    def codes(self, text: str) -> set[str]:
        """Those lexemes that are codes: whoever types one wants the text that has it."""
        matches = _WORD.finditer(unicodedata.normalize("NFKC", text))
        return {_code(match["code"])[:LONGEST] for match in matches if match["code"]}

    def _all(self, text: str) -> Iterator[Word]:
        yield from self._words(text)
        if _HANGUL.search(text):
            yield from self._morphemes(text)

    def _words(self, text: str) -> Iterator[Word]:
        for match in _WORD.finditer(text):
            if match["code"]:
                yield Word(_code(match["code"]), *match.span())
            elif match["number"]:
                yield Word(match["number"].replace(",", ""), *match.span())
            elif stem := self._english(match["english"].lower()):
                yield Word(stem, *match.span())

    def _english(self, word: str) -> str:
        """The stem, empty for a word that tells nothing."""
        word = word.removesuffix("'s").removesuffix("’s")
        if word in STOP or len(word) < 2:
            return ""
        # Other scripts that come this way (Cyrillic, Greek, accented Latin) are kept as they are.
        if not _LATIN.fullmatch(word):
            return word
        return self._stem(word) if len(word) <= LONGEST else self._stemmed(word)

    def _stemmed(self, word: str) -> str:
        with self._guard:
            return str(self._stemmer.stemWord(word))

    def _morphemes(self, text: str) -> Iterator[Word]:
        with self._guard:
            tokens = self._kiwi.tokenize(text)
        compound: list[Token] = []
        for token in tokens:
            if token.tag.split("-")[0] in CONTENT_TAGS and token.form not in STOP:
                yield Word(token.form, token.start, token.end)
            if compound and (token.tag not in NOUN_TAGS or token.start != compound[-1].end):
                yield from _joined(compound)
                compound = []
            if token.tag in NOUN_TAGS:
                compound.append(token)
        yield from _joined(compound)


def _joined(nouns: list[Token]) -> list[Word]:
    """Nouns written as one word, as one lexeme: the same compound may be a single noun in another sentence."""
    if len(nouns) < 2:
        return []
    joined = {
        first.form + second.form: Word(first.form + second.form, first.start, second.end)
        for first, second in pairwise(nouns)
    }
    whole = "".join(noun.form for noun in nouns)
    return list({whole: Word(whole, nouns[0].start, nouns[-1].end), **joined}.values())


def _code(text: str) -> str:
    """E-204, e204 and E_204 are one code; between digits a separator is kept, 1-23 is not 12-3."""
    return _CODE_SEPARATOR.sub("", text.lower())


def _normalised(text: str) -> tuple[str, list[int], list[int]]:
    """The text as NFKC writes it; for each of its characters, where what it was made from begins and ends."""
    if unicodedata.is_normalized("NFKC", text):
        return text, list(range(len(text))), list(range(1, len(text) + 1))
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    start = 0
    while start < len(text):
        end = start + 1
        while end < len(text) and _continues(text[start:end], text[end]):
            end += 1
        parts.append(unicodedata.normalize("NFKC", text[start:end]))
        starts += [start] * len(parts[-1])
        ends += [end] * len(parts[-1])
        start = end
    return "".join(parts), starts, ends


def _continues(group: str, character: str) -> bool:
    """True for what may become one character with those before it: accents, and the later letters of a syllable."""
    if unicodedata.combining(character) or "\u1160" <= character <= "\u11ff":
        return True
    apart = unicodedata.normalize("NFKC", group) + unicodedata.normalize("NFKC", character)
    return unicodedata.normalize("NFKC", group + character) != apart
