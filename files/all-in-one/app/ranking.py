"""How two lists of candidates become one: scores brought to one scale and added, weighted by what the query is like."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from store.search import Candidate

# The most that words may count: with a code in the query that some document has, and with rare words only. WORD_WEIGHT
# is where nDCG@10 of the sample corpus' tuning queries (demo/corpus/queries.jsonl) peaks: 0.676 at 0, 0.688 at 0.1,
# 0.665 at 0.3.
CODE_WEIGHT = 0.7
WORD_WEIGHT = 0.15
# A lexeme in more than this share of the chunks tells nothing about which one is meant.
RARE_SHARE = 0.1


@dataclass(frozen=True)
class Term:
    """A lexeme of the query: in how many chunks it is, its BM25 weight, and whether it is a code."""

    lexeme: str
    chunks: int
    weight: float
    is_code: bool


def telling(terms: Iterable[Term], total_chunks: int) -> list[Term]:
    """The terms that tell which chunks are meant: found, and rare or a code."""
    rare = max(1.0, RARE_SHARE * total_chunks)
    return [term for term in terms if term.chunks and (term.is_code or term.chunks <= rare)]


def word_weight(terms: Iterable[Term], total_chunks: int) -> float:
    """Share of the fused score that words get, 0 to CODE_WEIGHT.

    A code that is found says what is meant. Otherwise words count as far as the query's weight lies in words that are
    both found and rare; a query without any is answered by vectors alone.
    """
    terms = list(terms)
    if any(term.is_code and term.chunks for term in terms):
        return CODE_WEIGHT
    found = sum(term.weight for term in telling(terms, total_chunks))
    total = sum(term.weight for term in terms)
    return WORD_WEIGHT * found / total if total else 0.0


def fuse(similarities: Mapping[int, float], words: Mapping[int, float], weight: float) -> dict[int, float]:
    """{chunk: score 0..1}, best first. A chunk without a word score has none of the query's words."""
    by_vector, by_word = _to_unit(similarities), _to_unit({chunk: words.get(chunk, 0.0) for chunk in similarities})
    fused = {chunk: (1 - weight) * by_vector[chunk] + weight * by_word[chunk] for chunk in similarities}
    return dict(sorted(fused.items(), key=lambda entry: (-entry[1], entry[0])))


def best_per_document(ranked: Iterable[int], candidates: Mapping[int, Candidate]) -> list[int]:
    """The best chunk of each document, in the order of `ranked`."""
    seen: set[str] = set()
    best = []
    for chunk in ranked:
        if candidates[chunk].document_id not in seen:
            seen.add(candidates[chunk].document_id)
            best.append(chunk)
    return best


def lead(scores: Iterable[float]) -> float | None:
    """By how much the first of the scores, best first, is ahead of the second; None without a second."""
    first, second, *_ = [*scores, None, None]
    return None if first is None or second is None else first - second


def reorder(chunks: list[int], scores: Iterable[float | None]) -> list[int]:
    """Judged chunks by their score, then those the deadline left unjudged, in the order they had."""
    scored = dict(zip(chunks, scores, strict=False))
    judged = [chunk for chunk in chunks if scored.get(chunk) is not None]
    unjudged = [chunk for chunk in chunks if scored.get(chunk) is None]
    return sorted(judged, key=lambda chunk: -(scored[chunk] or 0.0)) + unjudged


def _to_unit(scores: Mapping[int, float]) -> dict[int, float]:
    """Scores moved to 0..1; all equal ones become 0, they tell nothing."""
    if not scores:
        return {}
    least, most = min(scores.values()), max(scores.values())
    span = most - least
    return {chunk: (score - least) / span if span > 0 else 0.0 for chunk, score in scores.items()}
