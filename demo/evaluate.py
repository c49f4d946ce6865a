"""Measures a box's search on labelled queries: recall@5, MRR@10 and nDCG@10, for each part of the search.

Run as `python demo/evaluate.py --url http://127.0.0.1:8000 --key-file KEY [--record FILE] [--json]`, and with --tune
to learn from which lead on the box may do without its reranker.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from measures import DEPTH, MEASURES, Comparison, Query, Values, compared, groups_of, margin_of, measured, queries_of
from onebox.client import Box
from onebox.client import OneboxError as DemoError
from onebox.command import add_box_arguments, box_of, run
from runs import record

CORPUS = Path(__file__).parent / "corpus"
HELD_OUT, TUNING = CORPUS / "heldout.jsonl", CORPUS / "queries.jsonl"
COMPARED = "nDCG@10"
INDENT = "  "


@dataclass(frozen=True)
class Way:
    """One way to search, from a part of the whole to the whole."""

    name: str
    rerank: str
    fusion: str


VECTORS = Way("vectors alone", rerank="off", fusion="vectors")
WORDS = Way("words alone", rerank="off", fusion="words")
FUSED = Way("vectors + words", rerank="off", fusion="hybrid")
RERANKED = Way("… reranked", rerank="always", fusion="hybrid")
AUTO = Way("… auto", rerank="auto", fusion="hybrid")
WAYS = (VECTORS, WORDS, FUSED, RERANKED, AUTO)


@dataclass(frozen=True)
class Answer:
    """What the evaluation looks at: documents, best first; whether and why they were reranked; the box's time.

    `lead` is by how much the first result was ahead before reranking, None without a second. `milliseconds` leave out
    the query's embedding, which is cached after the first way.
    """

    documents: list[str]
    reranked: bool
    why: str
    lead: float | None
    milliseconds: float


@dataclass(frozen=True)
class Model:
    """A model's name in the inventory, and the release of it that serves."""

    name: str
    release: str


@dataclass(frozen=True)
class Models:
    """What a box answers with. Without a reranker it reranks nothing."""

    embedding: Model
    reranker: Model | None


@dataclass(frozen=True)
class Outcome:
    """What one way achieved: the box's answers, and the figures of each."""

    answers: list[Answer]
    values: Values

    @property
    def reranked(self) -> int:
        return sum(answer.reranked for answer in self.answers)

    def milliseconds(self, percent: float) -> float:
        return float(np.percentile([answer.milliseconds for answer in self.answers], percent))


Outcomes = dict[Way, Outcome]


def require_documents(box: Box, queries: list[Query]) -> None:
    """Stops where labelled documents are missing from the box: figures without them would say nothing."""
    wanted = sorted({document_id for query in queries for document_id in query.relevant})
    missing = [document_id for document_id in wanted if not box.has_document(document_id)]
    if missing:
        raise DemoError(
            f"the box at {box.url} lacks {len(missing)} of the {len(wanted)} labelled documents "
            f"({', '.join(missing[:3])} …): ingest the corpus first, with `onebox ingest demo/corpus/passages.jsonl`"
        )


def models_of(box: Box) -> Models:
    models = box.health().get("models")
    if not models:
        raise DemoError(f"the box at {box.url} does not say which models serve: give it a key that may see /health")
    embedding, reranker = (
        Model(str(told["name"]), str(told["release"])) if (told := models[kind]) else None
        for kind in ("embedding", "reranker")
    )
    assert embedding is not None
    return Models(embedding, reranker)


def ask(box: Box, query: Query, way: Way) -> Answer:
    told = box.ask(query.text, top_k=DEPTH, rerank=way.rerank, fusion=way.fusion)
    answer = box.read_answer(told)
    return Answer(
        [result.document_id for result in answer.results],
        answer.reranked,
        answer.why,
        told["rerank"].get("lead"),
        answer.total_ms - told["timings_ms"].get("embed", 0.0),
    )


def evaluate(box: Box, queries: list[Query], way: Way) -> Outcome:
    answers = [ask(box, query, way) for query in queries]
    return Outcome(answers, measured(queries, [answer.documents for answer in answers]))


def means(queries: Sequence[Query], values: Values) -> dict[str, dict[str, float]]:
    """{group: {measure: mean}}."""
    return {
        group: {name: float(of_query[members].mean()) for name, of_query in values.items()}
        for group, members in groups_of(queries).items()
    }


def comparisons(queries: Sequence[Query], outcomes: Outcomes) -> dict[str, dict[str, Comparison]]:
    """{group: {what is compared: …}} on nDCG@10, for groups of several queries."""
    of = {way: outcome.values[COMPARED] for way, outcome in outcomes.items()}
    pairs = {
        "fused − vectors": (of[FUSED], of[VECTORS]),
        "fused − words": (of[FUSED], of[WORDS]),
        "reranked − fused": (of[RERANKED], of[FUSED]),
        "auto − reranked": (of[AUTO], of[RERANKED]),
    }
    return {
        group: {name: compared(ours[members], theirs[members]) for name, (ours, theirs) in pairs.items()}
        for group, members in groups_of(queries).items()
        if members.sum() > 1
    }


def table(queries: Sequence[Query], outcomes: Outcomes) -> str:
    """The figures as lines for a terminal, one block a group."""
    width = max(len(way.name) for way in WAYS) + 2 * len(INDENT)
    lines = [" " * width + "".join(f"{measure:>10}" for measure in MEASURES)]
    figures = {way: means(queries, outcome.values) for way, outcome in outcomes.items()}
    for group, members in groups_of(queries).items():
        lines.append(f"{group} ({members.sum()})")
        for way in outcomes:
            values = "".join(f"{value:>10.3f}" for value in figures[way][group].values())
            lines.append(f"{INDENT}{way.name:<{width - len(INDENT)}}{values}")
    lines += [
        "",
        f"{COMPARED}: mean difference [95 % interval of a paired bootstrap], p of a paired randomisation test",
    ]
    for group, found in comparisons(queries, outcomes).items():
        lines.append(group)
        lines += [f"{INDENT}{name:<18}{_told(comparison)}" for name, comparison in found.items()]
    return "\n".join([*lines, "", *_effort(outcomes)])


def _told(comparison: Comparison) -> str:
    interval = f"[{comparison.low:+.3f}, {comparison.high:+.3f}]"
    p = "p<0.001" if comparison.p < 0.001 else f"p={comparison.p:.3f}"
    return f"{comparison.difference:+.3f} {interval} {p}"


def _effort(outcomes: Outcomes) -> list[str]:
    """What the ways cost."""
    auto = outcomes[AUTO]
    count = len(auto.answers)
    times = [
        f"{INDENT}{way.name:<18}p50 {outcome.milliseconds(50):.0f} ms, p95 {outcome.milliseconds(95):.0f} ms"
        for way, outcome in outcomes.items()
    ]
    reasons = sorted({answer.why for answer in auto.answers if "no margin" in answer.why})
    return [
        f"auto: the reranker was skipped in {count - auto.reranked} of {count} searches",
        *(f"{INDENT}{reason}" for reason in reasons),
        "time of the box, without embedding the query",
        *times,
    ]


def report(path: Path, queries: Sequence[Query], outcomes: Outcomes, models: Models) -> dict[str, Any]:
    return {
        "queries": path.name,
        "count": len(queries),
        "models": asdict(models),
        "ways": {
            way.name: {
                "figures": means(queries, outcome.values),
                "reranked": outcome.reranked,
                "p50_ms": outcome.milliseconds(50),
                "p95_ms": outcome.milliseconds(95),
            }
            for way, outcome in outcomes.items()
        },
        "compared": {
            group: {name: asdict(comparison) for name, comparison in found.items()}
            for group, found in comparisons(queries, outcomes).items()
        },
    }


def tune(box: Box, queries: list[Query], models: Models) -> str:
    """What to write into the inventory, so that auto leaves out the reranker where it brings nothing."""
    if models.reranker is None:
        raise DemoError(f"the box at {box.url} has no reranker at work: there is no margin to measure")
    fused, judged = evaluate(box, queries, FUSED), evaluate(box, queries, RERANKED)
    leads = [answer.lead for answer in fused.answers]
    first, always = fused.values[COMPARED], judged.values[COMPARED]
    margin = margin_of(leads, first, always)
    lines = [
        f"{COMPARED} of {len(queries)} queries: {first.mean():.3f} in the first order, {always.mean():.3f} reranked"
    ]
    if margin is None:
        return "\n".join([*lines, "It is best with all of them reranked: leave the margin unset."])
    margin = math.floor(margin * 1000) / 1000  # as it is printed
    skipped = np.array([lead is not None and lead >= margin for lead in leads], dtype=bool)
    auto = float(np.where(skipped, first, always).mean())
    return "\n".join(
        [
            *lines,
            f"{auto:.3f} where the first order stays from a lead of {margin:.3f} on, in {skipped.sum()} of them.",
            "For the inventory:",
            "",
            "stack_rerank_auto_margins:",
            f"  - {{reranker: {models.reranker.name}, embedding: {models.embedding.name}, margin: {margin:.3f}}}",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the search of a box that holds the sample corpus.")
    add_box_arguments(parser)
    parser.add_argument(
        "--queries", type=Path, metavar="FILE",
        help="labelled queries (default: the held-out ones; with --tune those for tuning)",
    )  # fmt: skip
    parser.add_argument("--record", type=Path, metavar="FILE", help="append the table to this file, with the commit")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument(
        "--tune", action="store_true",
        help="print from which lead of the first result on the reranker brings nothing, as a line of the inventory",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    path: Path = arguments.queries or (TUNING if arguments.tune else HELD_OUT)
    if arguments.tune and path.resolve() == HELD_OUT.resolve():
        parser.error(f"{path.name} is for reporting: nothing is tuned on it")

    queries = queries_of(path)
    box = box_of(arguments)
    require_documents(box, queries)
    models = models_of(box)
    if arguments.tune:
        print(tune(box, queries, models))
        return 0
    outcomes = {way: evaluate(box, queries, way) for way in WAYS}
    if arguments.json:
        print(json.dumps(report(path, queries, outcomes, models), ensure_ascii=False))
        return 0
    heading = f"{path.name}: {len(queries)} queries; {_named(models)}"
    text = table(queries, outcomes)
    print(f"{heading}\n{text}")
    if arguments.record:
        record(arguments.record, heading, text)
    return 0


def _named(models: Models) -> str:
    return f"embedding {models.embedding.release}, reranker {models.reranker.release if models.reranker else 'none'}"


if __name__ == "__main__":
    run(main)
