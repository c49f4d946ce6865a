"""What a generation must fulfil before it serves: nothing found today is lost, and its index finds what is near."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import sql

from pipeline.embedder import Embedder
from store import recall, switching
from store.connection import Database
from store.generations import Generation
from store.search import nearest
from store.statements import statement
from text import sentences
from text.chunker import Chunker
from worker import labelled
from worker.indexing import passage_hash

SAMPLE = 50
# With these settings of the index, random and real vectors alike reach 0.98 and more; less than this is an index that
# is broken, or vectors that lie too close together to be told apart.
RECALL = 0.95


# A release is proven to keep a cosine of 0.998 to the float model's vectors on average, and 0.92 of its first ten
# results (modelbuild/thresholds.py). Two releases may differ from it to opposite sides: angles and losses add up.
COSINE = 0.992
OVERLAP = 0.85
DEPTH = 10


@dataclass(frozen=True)
class Verdict:
    """`why` is what fell short, None if nothing did; `figures` is what was measured."""

    why: str | None
    figures: dict[str, Any]


def judge(database: Database, serving: Generation, generation: Generation, go_on: Callable[[], bool]) -> Verdict | None:
    """Judge a generation that waits for nothing more. None if it does again, or once `go_on()` is False."""
    with database.transaction():
        # One picture: what arrives meanwhile is either in all of these, or in none.
        database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if switching.is_open(database, generation):
            return None
        behind = switching.count_behind(database, serving, generation)
        counted = database.execute(
            statement("count_chunks", generation=sql.Literal(generation.id), **generation.tables)
        ).fetchone()
    assert counted is not None
    found = recall.measure(database, generation, SAMPLE, go_on)
    if found is None:
        return None
    figures = {"behind": behind, "chunks": counted["chunks"], "vectors": counted["vectors"], "recall": round(found, 4)}
    return Verdict(_shortfall(database, generation, figures), figures)


def with_labels(verdict: Verdict, generation: Generation, compared: labelled.Comparison) -> Verdict:
    """The verdict with what labelled queries say."""
    before, after = round(compared.before, 4), round(compared.after, 4)
    figures = verdict.figures | {"queries": compared.queries, "ndcg_before": before, "ndcg": after}
    if not compared.significantly_worse:
        return Verdict(verdict.why, figures)
    why = (
        f"{generation.release} answers the {compared.queries} labelled queries worse than what serves: nDCG@10 "
        f"{after:.3f} instead of {before:.3f}."
    )
    return Verdict(why, figures)


def compare(
    database: Database, serving: Generation, present: Embedder, other: Embedder, go_on: Callable[[], bool]
) -> Verdict | None:
    """Whether another release of the embedding space may compute beside the stored vectors. None once not `go_on()`.

    Stored passages are embedded again, and compared with their vectors; queries made of them are searched for with
    both releases. Without a stored vector there is nothing to fall short of.
    """
    rows = database.execute(statement("sample_passages", **serving.tables), {"sample": SAMPLE}).fetchall()
    chunker = Chunker(other)
    cosines: list[float] = []
    overlaps: list[float] = []
    for row in rows:
        if not go_on():
            return None
        passage = chunker.passage(row["title"], row["content"])
        if row["passage_hash"] not in (None, passage_hash(passage)):
            continue  # its title is newer than its vector
        stored = np.array(json.loads(row["vector"]), np.float32)
        vector = other.encode_array([passage], input_type="passage")[0]
        cosines.append(float(vector @ stored / (np.linalg.norm(vector) * np.linalg.norm(stored))))
        query = row["title"] or _first_sentence(row["content"])
        found = [_nearest(database, serving, model, query) for model in (present, other)]
        overlaps.append(len(found[0] & found[1]) / max(1, len(found[0])))
    if not cosines:
        return Verdict(None, {"compared": 0})
    cosine, overlap = sum(cosines) / len(cosines), sum(overlaps) / len(overlaps)
    why = None
    if cosine < COSINE or overlap < OVERLAP:
        why = (
            f"{other.release_id} does not agree with the stored vectors of {present.release_id}: their cosine is "
            f"{cosine:.3f} (at least {COSINE}), of the first ten results {overlap:.2f} are the same "
            f"(at least {OVERLAP}); so all documents are embedded again."
        )
    return Verdict(why, {"compared": len(cosines), "cosine": round(cosine, 4), "overlap": round(overlap, 4)})


def _first_sentence(text: str) -> str:
    return next((part for start, end in sentences.split(text) if (part := text[start:end].strip())), text)


def _nearest(database: Database, generation: Generation, model: Embedder, query: str) -> set[int]:
    vector = model.encode_array([query], input_type="query")[0].tolist()
    with database.transaction():
        found = nearest(database, generation, vector, recall.CANDIDATES)
    return set(list(found)[:DEPTH])


def _shortfall(database: Database, generation: Generation, figures: dict[str, Any]) -> str | None:
    if figures["behind"]:
        first = switching.first_given_up(database, generation)
        return (
            f"{figures['behind']} documents that are found today could not be indexed with {generation.release}"
            f"{f', the first: {first}' if first else ''}."
        )
    if figures["vectors"] != figures["chunks"]:
        return f"Of {figures['chunks']} chunks {figures['vectors']} have a vector by {generation.release}."
    if figures["recall"] < RECALL:
        return (
            f"The index of {generation.release} finds {figures['recall']:.3f} of the ten nearest vectors; "
            f"at least {RECALL} is needed."
        )
    return None
