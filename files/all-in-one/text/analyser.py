"""Texts to lexemes, the words that a search compares: Korean morphemes, English stems, codes and numbers."""

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import snowballstemmer
from kiwipiepy import Kiwi, Token

# Part of every generation: another version gives other lexemes, so documents are analysed again.
VERSION = "kiwi-0.24-snowball-3-2"

# Korean tags that carry content: nouns, numerals, roots, verbs, adjectives, and determiners such as 새 or 모든.
CONTENT_TAGS = frozenset({"NNG", "NNP", "NR", "XR", "VV", "VA", "MAG"})
# Characters of a lexeme; what is longer (a key, a hash, encoded bytes) is told apart by its beginning.
LONGEST = 64
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


class Analyser:
    """Safe to use from several threads. Loading takes some 1.5 seconds of CPU and 300 MB."""

    def __init__(self) -> None:
        # Without the dictionary of multi-word names: half of the memory, half of the start.
        self._kiwi = Kiwi(num_workers=1, load_multi_dict=False)
        self._kiwi.tokenize("")  # builds the rest now, not at the first question
        self._stemmer = snowballstemmer.stemmer("english")
        self._guard = threading.Lock()

    def lexemes(self, text: str) -> Counter[str]:
        """Lexemes with their counts. The same word gives the same lexeme in a question and in a document."""
        text = unicodedata.normalize("NFKC", text)
        found = Counter(word[:LONGEST] for word in self._words(text))
        if _HANGUL.search(text):
            found.update(word[:LONGEST] for word in self._morphemes(text))
        return found

    def codes(self, text: str) -> set[str]:
        """Those lexemes that are codes: whoever types one wants the text that has it."""
        matches = _WORD.finditer(unicodedata.normalize("NFKC", text))
        return {_code(match["code"])[:LONGEST] for match in matches if match["code"]}

    def _words(self, text: str) -> Iterator[str]:
        for match in _WORD.finditer(text):
            if match["code"]:
                yield _code(match["code"])
            elif match["number"]:
                yield match["number"].replace(",", "")
            else:
                yield from self._english(match["english"].lower())

    def _english(self, word: str) -> Iterator[str]:
        word = word.removesuffix("'s").removesuffix("’s")
        if word in STOP or len(word) < 2:
            return
        # Other scripts that come this way (Cyrillic, Greek, accented Latin) are kept as they are.
        with self._guard:
            yield self._stemmer.stemWord(word) if _LATIN.fullmatch(word) else word

    def _morphemes(self, text: str) -> Iterator[str]:
        with self._guard:
            tokens = self._kiwi.tokenize(text)
        compound: list[Token] = []
        for token in tokens:
            if token.tag.split("-")[0] in CONTENT_TAGS and token.form not in STOP:
                yield token.form
            if compound and (token.tag not in NOUN_TAGS or token.start != compound[-1].end):
                yield from _joined(compound)
                compound = []
            if token.tag in NOUN_TAGS:
                compound.append(token)
        yield from _joined(compound)


def _joined(nouns: list[Token]) -> set[str]:
    """Nouns written as one word, as one lexeme: the same compound may be a single noun in another sentence."""
    pairs = {first.form + second.form for first, second in pairwise(nouns)}
    return pairs | {"".join(noun.form for noun in nouns)} if pairs else set()


def _code(text: str) -> str:
    """E-204, e204 and E_204 are one code; between digits a separator is kept, 1-23 is not 12-3."""
    return _CODE_SEPARATOR.sub("", text.lower())
