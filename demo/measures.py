"""How good rankings are on labelled queries, and whether one way to rank is better than another or only luckier."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Apache-2.0 and maintained; it wraps trec_eval, the reference these figures are compared with everywhere. That costs
# compiled numpy and scipy on the controller (never on the box); ranx would cost numba on top of both.
import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from scipy import stats

from jsonl import read_jsonl
from onebox.client import OneboxError as DemoError

DEPTH = 10
MEASURES = {"recall@5": R @ 5, "MRR@10": RR @ DEPTH, "nDCG@10": nDCG @ DEPTH}
LANGUAGES = {"ko": "Korean", "en": "English"}
CLASSES = ("paraphrase", "keyword", "short", "misspelt", "cross")
RESAMPLES = 9999
SEED = 5  # the same answers give the same intervals

# Each measure's value for every query, in the order of the queries.
Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Query:
    """A labelled query. `kind` is its class: how a customer puts the question."""

    id: str
    language: str
    kind: str
    text: str
    relevant: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """How much better one way is than another, on the same queries: the mean difference, its 95 % interval, and p.

    `p` is how often chance alone, swapping the two in queries at random, makes a mean difference as large as this one.
    """

    difference: float
    low: float
    high: float
    p: float


def queries_of(path: Path) -> list[Query]:
    queries = []
    for number, row in enumerate(read_jsonl(path), 1):
        missing = {"id", "language", "class", "query", "relevant"} - set(row)
        if missing or not row["relevant"]:
            raise DemoError(f"{path}, query {number}: lacks {sorted(missing) or 'a relevant passage'}")
        for field, expected in (("language", tuple(LANGUAGES)), ("class", CLASSES)):
            if row[field] not in expected:
                raise DemoError(f"{path}, query {number}: {field} {row[field]!r}, expected one of {expected}")
        queries.append(Query(row["id"], row["language"], row["class"], row["query"], tuple(row["relevant"])))
    return queries


def groups_of(queries: Sequence[Query]) -> dict[str, np.ndarray]:
    """Which queries belong to all, to each language and to each class; groups without one are left out."""
    groups = {"all": np.ones(len(queries), dtype=bool)}
    for language, name in LANGUAGES.items():
        groups[name] = np.array([query.language == language for query in queries], dtype=bool)
    for kind in CLASSES:
        groups[kind] = np.array([query.kind == kind for query in queries], dtype=bool)
    return {name: members for name, members in groups.items() if members.any()}


def measured(queries: Sequence[Query], rankings: Sequence[Sequence[str]]) -> Values:
    """The three figures of each query's ranking (document ids, best first); one that found nothing has zeros."""
    labels = {query.id: dict.fromkeys(query.relevant, 1) for query in queries}
    # trec_eval sorts by score and breaks ties by name: the rank as the score keeps the order the box gave.
    ranked = {
        query.id: {document_id: float(-rank) for rank, document_id in enumerate(ranking)}
        for query, ranking in zip(queries, rankings, strict=True)
    }
    row_of = {query.id: row for row, query in enumerate(queries)}
    values = {name: np.zeros(len(queries)) for name in MEASURES}
    name_of = {measure: name for name, measure in MEASURES.items()}
    for metric in ir_measures.iter_calc(MEASURES.values(), labels, ranked):
        values[name_of[metric.measure]][row_of[metric.query_id]] = metric.value
    return values


def compared(ours: np.ndarray, theirs: np.ndarray) -> Comparison:
    """`ours` minus `theirs`, values of the same queries: paired bootstrap interval, paired randomisation test."""
    differences = ours - theirs
    interval = stats.bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(SEED)
    ).confidence_interval
    test = stats.permutation_test(
        (ours, theirs), lambda one, other, axis: np.mean(one - other, axis=axis), permutation_type="samples",
        n_resamples=RESAMPLES, vectorized=True, rng=np.random.default_rng(SEED),
    )  # fmt: skip
    return Comparison(float(differences.mean()), float(interval.low), float(interval.high), float(test.pvalue))


def margin_of(leads: Sequence[float | None], first: np.ndarray, judged: np.ndarray) -> float | None:
    """The lead from which on the first order may stay, for the best mean over all queries; of several the least.

    `first` and `judged` are a measure's values without and with the reranker, of the queries whose first result leads
    by `leads` (None without a second result). None where the mean is best with all of them judged.
    """
    known = np.array([-np.inf if lead is None else lead for lead in leads])
    gains = {float(lead): float((first - judged)[known >= lead].sum()) for lead in known if np.isfinite(lead)}
    most = max(gains.values(), default=-np.inf)
    # Sums of the same values in another order differ in their last bits.
    return min(lead for lead, gain in gains.items() if gain >= most - 1e-9) if most > -1e-9 else None
