"""The gate: what a candidate gives on the gate's text, compared with the float model, against thresholds."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelbuild import metrics
from modelbuild.profile import Profile
from modelbuild.texts import GateTexts, sanity_triples
from pipeline.embedder import Embedder
from pipeline.reranker import Reranker
from pipeline.tokens import TextTokenizer, TokenSequence

TIMED_TEXTS = 12
TIMED_ROUNDS = 5
# Each look costs a reranker a run for every one of these queries and its candidates: 640 pairs of up to 500 tokens.
MOST_RERANKED = 80
DIGITS = 4


@dataclass(frozen=True)
class Answers:
    """What one model computed: vectors of passages and queries, or logits [queries, candidates]; sanity share 0..1."""

    sanity: float
    passages: np.ndarray[Any, Any] | None = None
    queries: np.ndarray[Any, Any] | None = None
    logits: np.ndarray[Any, Any] | None = None


def answer(folder: Path, profile: Profile, texts: GateTexts) -> Answers:
    """Run the model in `folder` with the serving code over the gate's text."""
    triples = sanity_triples(profile.languages)
    if profile.kind == "embedding":
        embedder = Embedder(folder)
        return Answers(
            sanity=_share([_embedding_is_sane(embedder, triple) for triple in triples]),
            passages=embedder.encode_array(texts.passages, input_type="passage"),
            queries=embedder.encode_array(texts.queries, input_type="query"),
        )
    reranker = Reranker(folder)
    logits = [
        reranker.logits(texts.queries[query], [texts.passages[i] for i in texts.candidates(query)])
        for query in _reranked_queries(texts)
    ]
    return Answers(sanity=_share([_reranker_is_sane(reranker, triple) for triple in triples]), logits=np.array(logits))


def compare_answers(profile: Profile, texts: GateTexts, reference: Answers, candidate: Answers) -> dict[str, float]:
    """The gate's figures of a candidate, named as the thresholds without their min_ and max_."""
    compare = _compare_vectors if profile.kind == "embedding" else _compare_logits
    figures = compare(texts, reference, candidate)
    return {
        name: value if isinstance(value, int) else round(float(value), DIGITS)
        for name, value in {**figures, "sanity": candidate.sanity}.items()
    }


def judge(figures: Mapping[str, float], thresholds: Mapping[str, float]) -> list[str]:
    """What is wrong with the figures, in words; empty when they pass. Figures not measured yet are not judged."""
    wrong = []
    for name, limit in thresholds.items():
        side, figure = name.split("_", 1)
        value = figures.get(figure)
        if value is None:
            continue
        if side == "min" and not value >= limit:
            wrong.append(f"{figure} {value} is below {limit}")
        if side == "max" and not value <= limit:
            wrong.append(f"{figure} {value} is above {limit}")
    if figures.get("sanity", 1.0) < 1.0:
        wrong.append("an irrelevant text scores above a relevant one")
    return wrong


def measure_speed(folders: Mapping[str, Path], profile: Profile, texts: GateTexts) -> dict[str, float]:
    """Milliseconds of processor time a text takes on one core, by the names of `folders`.

    The models take turns and each text's fastest round counts, so that a busy machine slows all alike; processor time
    does not count what other processes get in between.
    """
    model = Embedder if profile.kind == "embedding" else Reranker
    engines = [model(folder, threads=1).engine for folder in folders.values()]
    sequences = sample_sequences(next(iter(folders.values())), profile, texts, TIMED_TEXTS)
    fastest = np.full((len(engines), len(sequences)), np.inf)
    for _ in range(TIMED_ROUNDS):
        for column, sequence in enumerate(sequences):
            for row, engine in enumerate(engines):
                start = time.thread_time()
                engine.run(sequence.ids, sequence.type_ids)
                fastest[row, column] = min(fastest[row, column], time.thread_time() - start)
    return {name: round(float(ms), 2) for name, ms in zip(folders, fastest.mean(axis=1) * 1000, strict=True)}


def sample_sequences(folder: Path, profile: Profile, texts: GateTexts, count: int) -> list[TokenSequence]:
    """Model inputs spread over the gate's text, languages and lengths mixed."""
    tokens = TextTokenizer(folder / "tokenizer.json", profile.max_length)
    if profile.kind == "embedding":
        prefix = profile.prefixes.get("passage", "")
        chosen = [texts.passages[i] for i in _spread(len(texts.passages), count)]
        return tokens.singles([prefix + text for text in chosen])
    chosen_queries = _spread(len(texts.queries), count)
    return [tokens.pair(tokens.query(texts.queries[i]), texts.passages[texts.passage_of[i]]) for i in chosen_queries]


def _spread(total: int, count: int) -> list[int]:
    return sorted({int(position) for position in np.linspace(0, total - 1, min(count, total))})


def _reranked_queries(texts: GateTexts) -> list[int]:
    """At most one query a passage, MOST_RERANKED in all: a cross-encoder's gate costs a run per query and candidate."""
    first = [i for i, passage in enumerate(texts.passage_of) if i == 0 or texts.passage_of[i - 1] != passage]
    return [first[position] for position in _spread(len(first), MOST_RERANKED)]


def _compare_vectors(texts: GateTexts, reference: Answers, candidate: Answers) -> dict[str, float]:
    assert reference.passages is not None and reference.queries is not None
    assert candidate.passages is not None and candidate.queries is not None
    cosines = np.concatenate(
        [metrics.cosines(reference.passages, candidate.passages), metrics.cosines(reference.queries, candidate.queries)]
    )
    scores, other = reference.queries @ reference.passages.T, candidate.queries @ candidate.passages.T
    overlap = metrics.top_overlap(scores, other, 10)
    low, high = metrics.bootstrap_interval(overlap)
    return {
        "queries": len(texts.queries),
        "passages": len(texts.passages),
        "mean_cosine": cosines.mean(),
        "cosine": cosines.min(),
        "spearman": metrics.spearman(scores, other),
        "top10_overlap": overlap.mean(),
        "top10_overlap_low": low,
        "top10_overlap_high": high,
        "language_top10_overlap": metrics.worst_group(overlap, texts.query_languages),
        "top1_agreement": metrics.top1_agreement(scores, other).mean(),
    }


def _compare_logits(texts: GateTexts, reference: Answers, candidate: Answers) -> dict[str, float]:
    assert reference.logits is not None and candidate.logits is not None
    drift = np.abs(metrics.sigmoid(reference.logits) - metrics.sigmoid(candidate.logits))
    agreement = metrics.top1_agreement(reference.logits, candidate.logits)
    languages = [texts.query_languages[query] for query in _reranked_queries(texts)]
    return {
        "queries": len(languages),
        "pairs": reference.logits.size,
        "mean_drift": drift.mean(),
        "drift": drift.max(),
        "spearman": metrics.spearman(reference.logits, candidate.logits),
        "top1_agreement": agreement.mean(),
        "language_top1_agreement": metrics.worst_group(agreement, languages),
    }


def _share(values: list[bool]) -> float:
    return sum(values) / len(values) if values else 1.0


def _embedding_is_sane(embedder: Embedder, triple: tuple[str, str, str]) -> bool:
    query = embedder.encode_array([triple[0]], input_type="query")[0]
    relevant, irrelevant = embedder.encode_array(triple[1:], input_type="passage")
    return bool(query @ relevant > query @ irrelevant)


def _reranker_is_sane(reranker: Reranker, triple: tuple[str, str, str]) -> bool:
    relevant, irrelevant = reranker.logits(triple[0], triple[1:])
    return bool(relevant is not None and irrelevant is not None and relevant > irrelevant)
