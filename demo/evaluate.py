"""Measures a box's search on labelled queries: recall@5, MRR@10 and nDCG@10, for each part of the search.

Run as `python demo/evaluate.py --url http://127.0.0.1:8000 --key-file KEY [--queries FILE] [--json]`.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Apache-2.0 and maintained; it wraps trec_eval, the reference these figures are compared with everywhere. That costs
# compiled numpy and scipy on the controller (never on the box); ranx would cost numba on top of both.
import ir_measures
from ir_measures import RR, R, nDCG

from jsonl import read_jsonl
from onebox.client import Answer, Box
from onebox.client import OneboxError as DemoError
from onebox.command import add_box_arguments, box_of, run

CORPUS = Path(__file__).parent / "corpus"
DEPTH = 10
MEASURES = {"recall@5": R @ 5, "MRR@10": RR @ 10, "nDCG@10": nDCG @ 10}
GROUPS = {"all": ("ko", "en"), "Korean": ("ko",), "English": ("en",)}

Figures = dict[str, float]


@dataclass(frozen=True)
class Way:
    """One way to search, from a part of the whole to the whole."""

    name: str
    rerank: bool
    fusion: str


WAYS = (
    Way("vectors alone", rerank=False, fusion="vectors"),
    Way("vectors + words", rerank=False, fusion="hybrid"),
    Way("whole search", rerank=True, fusion="hybrid"),
)


@dataclass(frozen=True)
class Query:
    id: str
    language: str
    text: str
    relevant: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What one way achieved: figures by group, how many searches were reranked, and the box's median time in ms."""

    way: Way
    figures: dict[str, Figures]
    reranked: int
    median_ms: float


def queries_of(path: Path) -> list[Query]:
    queries = []
    for number, row in enumerate(read_jsonl(path), 1):
        missing = {"id", "language", "query", "relevant"} - set(row)
        if missing or not row["relevant"]:
            raise DemoError(f"{path}, query {number}: lacks {sorted(missing) or 'a relevant passage'}")
        if row["language"] not in GROUPS["all"]:
            raise DemoError(f"{path}, query {number}: language {row['language']!r}, expected one of {GROUPS['all']}")
        queries.append(Query(row["id"], row["language"], row["query"], tuple(row["relevant"])))
    return queries


def require_documents(box: Box, queries: list[Query]) -> None:
    """Stops where labelled documents are missing from the box: figures without them would say nothing."""
    wanted = sorted({document_id for query in queries for document_id in query.relevant})
    missing = [document_id for document_id in wanted if not box.has_document(document_id)]
    if missing:
        raise DemoError(
            f"the box at {box.url} lacks {len(missing)} of the {len(wanted)} labelled documents "
            f"({', '.join(missing[:3])} …): ingest the corpus first, with `onebox ingest demo/corpus/passages.jsonl`"
        )


def measured(queries: list[Query], answers: list[Answer]) -> Figures:
    """The three figures, averaged over the queries; one that found nothing counts as zero."""
    labels = {query.id: dict.fromkeys(query.relevant, 1) for query in queries}
    # trec_eval sorts by score and breaks ties by name: the rank as the score keeps the order the box gave.
    ranked = {
        query.id: {result.document_id: float(-rank) for rank, result in enumerate(answer.results)}
        for query, answer in zip(queries, answers, strict=True)
    }
    means = ir_measures.calc_aggregate(MEASURES.values(), labels, ranked)
    return {name: float(means[measure]) for name, measure in MEASURES.items()}


def evaluate(box: Box, queries: list[Query], way: Way) -> Outcome:
    answers = [box.search(query.text, top_k=DEPTH, rerank=way.rerank, fusion=way.fusion) for query in queries]
    figures = {}
    for group, languages in GROUPS.items():
        pairs = [(query, answer) for query, answer in zip(queries, answers, strict=True) if query.language in languages]
        if pairs:
            figures[group] = measured([query for query, _ in pairs], [answer for _, answer in pairs])
    reranked = sum(answer.reranked for answer in answers)
    return Outcome(way, figures, reranked, statistics.median(answer.total_ms for answer in answers))


def table(queries: list[Query], outcomes: list[Outcome]) -> str:
    """The figures as lines for a terminal, one block a group."""
    name_width = max(len(way.name) for way in WAYS) + 4
    lines = [" " * name_width + "".join(f"{measure:>10}" for measure in MEASURES)]
    for group, languages in GROUPS.items():
        count = sum(query.language in languages for query in queries)
        if not count:
            continue
        lines.append(f"{group} ({count})")
        for outcome in outcomes:
            values = "".join(f"{value:>10.3f}" for value in outcome.figures[group].values())
            lines.append(f"  {outcome.way.name:<{name_width - 2}}{values}")
    times = ", ".join(f"{outcome.way.name} {outcome.median_ms:.0f} ms" for outcome in outcomes)
    lines.append(f"median time: {times}; reranked: {outcomes[-1].reranked} of {len(queries)}")
    return "\n".join(lines)


def report(path: Path, queries: list[Query], outcomes: list[Outcome]) -> dict[str, Any]:
    ways = {
        outcome.way.name: {
            "figures": outcome.figures, "reranked": outcome.reranked, "median_ms": outcome.median_ms,
        }
        for outcome in outcomes
    }  # fmt: skip
    return {"queries": path.name, "count": len(queries), "ways": ways}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the search of a box that holds the sample corpus.")
    add_box_arguments(parser)
    parser.add_argument(
        "--queries", type=Path, default=CORPUS / "heldout.jsonl", metavar="FILE",
        help="labelled queries (default: the held-out ones; tune on queries.jsonl, never on these)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args(argv)

    queries = queries_of(arguments.queries)
    box = box_of(arguments)
    require_documents(box, queries)
    outcomes = [evaluate(box, queries, way) for way in WAYS]
    if arguments.json:
        print(json.dumps(report(arguments.queries, queries, outcomes), ensure_ascii=False))
    else:
        print(f"{arguments.queries.name}: {len(queries)} queries\n{table(queries, outcomes)}")
    return 0


if __name__ == "__main__":
    run(main)
