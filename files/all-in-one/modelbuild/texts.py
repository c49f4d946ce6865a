"""The gate's text: short and long passages and queries in several languages."""

import json
from dataclasses import dataclass
from pathlib import Path

from modelbuild.errors import BuildError
from modelbuild.request import GATE_TEXT

EVERY_LANGUAGE = "multilingual"
CANDIDATES_PER_QUERY = 8
SANITY: dict[str, tuple[tuple[str, str, str], ...]] = {
    "ko": (
        (
            "대한민국의 수도는 어디인가요?",
            "대한민국의 수도는 서울이며, 정부 기관과 회사가 많이 모여 있습니다.",
            "고양이는 하루의 대부분을 잠을 자며 보냅니다.",
        ),
    ),
    "en": (
        (
            "What is the capital of France?",
            "Paris is the capital and the largest city of France.",
            "Cats spend most of the day asleep.",
        ),
    ),
}


@dataclass(frozen=True)
class GateTexts:
    """Parallel lists: `passage_of[i]` is the index of the passage that answers query i."""

    passages: list[str]
    passage_languages: list[str]
    queries: list[str]
    query_languages: list[str]
    passage_of: list[int]

    def candidates(self, query: int) -> list[int]:
        """The query's own passage and its neighbours in the file, which share its language and topic."""
        own = self.passage_of[query]
        same = [i for i, language in enumerate(self.passage_languages) if language == self.query_languages[query]]
        near = sorted(same, key=lambda i: (abs(i - own), i))[:CANDIDATES_PER_QUERY]
        return sorted(near)


def read_gate_texts(languages: tuple[str, ...], file: Path = GATE_TEXT) -> GateTexts:
    """Texts in the profile's languages; all of them when it is multilingual or has none of the gate's languages."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if EVERY_LANGUAGE not in languages:
        rows = [row for row in rows if row["language"] in languages] or rows
    if not rows:
        raise BuildError(f"{file}: holds no text to prove a model with.")
    queries = [(query, row["language"], index) for index, row in enumerate(rows) for query in row["queries"]]
    return GateTexts(
        passages=[row["passage"] for row in rows],
        passage_languages=[row["language"] for row in rows],
        queries=[query for query, _, _ in queries],
        query_languages=[language for _, language, _ in queries],
        passage_of=[index for _, _, index in queries],
    )


def sanity_triples(languages: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """(query, relevant text, irrelevant text) in the languages the model is made for."""
    every = EVERY_LANGUAGE in languages
    return [triple for language, triples in SANITY.items() if every or language in languages for triple in triples]
