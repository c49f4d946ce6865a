"""What is measured with, made once a run and the same on every run."""

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from bench.box import Box
from bench.texts import (
    LANGUAGES,
    Material,
    TextMaker,
    describe,
    every_length,
    mixed_lengths,
    padding_share,
    read_material,
    short_queries,
)

MIXED = 256
BULK, BULK_LONG = 64, 8
LONG_TOKENS = 512
CANDIDATES, CANDIDATE_TOKENS = 20, 60


@dataclass(frozen=True)
class Inputs:
    """`mixed`: texts of mixed lengths. `bulk`: fewer of them, with some of 512 tokens. `queries`: short questions."""

    mixed: list[str]
    bulk: list[str]
    queries: list[str]
    candidates: dict[str, list[str]]
    maker: TextMaker
    material: Material

    def described(self) -> dict[str, Any]:
        """Token counts as they are, special tokens included, prefixes not."""
        return {
            "mixed": describe([self.maker.tokens(text) for text in self.mixed]),
            "padding_share": padding_share([self.maker.tokens(text) for text in self.mixed], 32),
            "bulk": describe([self.maker.tokens(text) for text in self.bulk]),
            "queries": len(self.queries),
            "candidates": describe([self.maker.tokens(text) for text in self.candidates["ko"] + self.candidates["en"]]),
        }

    def many(self, count: int) -> list[str]:
        """`count` texts, mostly short, with every length up to what the model reads."""
        return self.maker.make(every_length(count, LONG_TOKENS))

    def questions(self) -> list[str]:
        """Every real question once, Korean and English in turns as far as there are as many."""
        pairs = zip_longest(*(dict.fromkeys(self.material.queries[language]) for language in LANGUAGES))
        return [question for pair in pairs for question in pair if question]


def make_inputs(box: Box) -> Inputs:
    from tokenizers import Tokenizer  # noqa: PLC0415

    material = read_material(box.code / "corpus", box.deployment / "modelbuild" / "faq")
    maker = TextMaker(material, Tokenizer.from_file(str(box.tokenizer)))
    prefix = box.prefixes["query"]
    mixed = maker.make([length for length in mixed_lengths(MIXED // 2) for _ in LANGUAGES])
    bulk = maker.make([*mixed_lengths(BULK - BULK_LONG), *[LONG_TOKENS] * BULK_LONG])
    candidates = {
        language: [maker.cut(CANDIDATE_TOKENS, language) for _ in range(CANDIDATES)] for language in LANGUAGES
    }
    return Inputs(mixed, bulk, short_queries(material, maker, prefix), candidates, maker, material)
