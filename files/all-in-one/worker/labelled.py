"""The operator's labelled queries: a generation does not take over if it answers them worse than the one that serves.

They lie in the models folder as queries.jsonl (or where LABELLED_QUERIES_FILE says), a line each: {"query": …,
"relevant": [ids of the documents that answer it]}, as in demo/corpus/heldout.jsonl.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.cache import VectorCache
from app.models import Loaded
from app.reranking import Reranking
from app.retrieval import Request, Retrieval
from app.searching import Search
from app.vectors import Vectors
from pipeline.embedder import Embedder
from store.connection import open_pool
from store.generations import Generation
from text.analyser import Analyser

DEPTH = 10
LEAST = 10  # queries; of fewer nothing can be said to be significant
RESAMPLES = 9999
SEED = 5  # the same answers give the same interval


class LabelsError(RuntimeError):
    """The file of labelled queries cannot be used, in one sentence."""


@dataclass(frozen=True)
class Labelled:
    query: str
    relevant: frozenset[str]


@dataclass(frozen=True)
class Comparison:
    """nDCG@10 of the first order, before reranking, of both; `significantly_worse` is whether chance does not tell it.

    The bootstrap's 95 % interval of the mean difference over the queries lies below 0 then.
    """

    queries: int
    before: float
    after: float
    significantly_worse: bool


def file_of(environment: Mapping[str, str] = os.environ) -> Path:
    named = environment.get("LABELLED_QUERIES_FILE")
    return Path(named or Path(environment.get("EMBED_ONNX_DIR") or "/models/emb").with_name("queries.jsonl"))


def read(path: Path) -> list[Labelled]:
    """The labelled queries of a file, none where there is no file. LabelsError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise LabelsError(f"{path} cannot be read ({error}); correct it, or remove it to switch without.") from None
    return [_line(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def compare(
    where: str,
    labelled: Sequence[Labelled],
    sides: Sequence[tuple[Generation, Embedder]],
    analyser: Analyser,
    go_on: Callable[[], bool],
) -> Comparison | None:
    """Ask both generations, the one that serves first, as a search does. None once `go_on()` is False."""
    with (
        open_pool(where, size=1) as pool,
        closing(Retrieval(pool, Vectors(VectorCache("")), cores=1)) as retrieval,
    ):
        pool.wait()
        search = Search(retrieval, Reranking(top_k=0, deadline=0.0, margins=()))
        values: list[list[float]] = []
        for generation, embedder in sides:
            loaded = Loaded(embedder, None, analyser, generation, None, None)
            values.append([])
            for one in labelled:
                if not go_on():
                    return None
                answer = search.run(lambda loaded=loaded: loaded, Request(one.query, DEPTH, "off", "hybrid"))  # type: ignore[misc]
                values[-1].append(ndcg([result["document_id"] for result in answer["results"]], one.relevant))
    before, after = (np.array(of_side) for of_side in values)
    return Comparison(len(labelled), float(before.mean()), float(after.mean()), is_significantly_below(after - before))


def ndcg(ranking: Sequence[str], relevant: frozenset[str]) -> float:
    """nDCG@10 of document ids, best first, all of the relevant ones equally so."""
    gains = [1 / np.log2(rank + 2) for rank in range(DEPTH)]
    found = sum(gain for gain, document in zip(gains, ranking, strict=False) if document in relevant)
    return float(found / sum(gains[: len(relevant)]))


def is_significantly_below(differences: np.ndarray[Any, Any]) -> bool:
    """Whether the mean of paired differences is below 0 by more than which queries were asked explains."""
    if len(differences) < LEAST:
        return False
    chosen = np.random.default_rng(SEED).integers(0, len(differences), (RESAMPLES, len(differences)))
    return bool(np.percentile(differences[chosen].mean(axis=1), 97.5) < 0)


def _line(line: str, where: str) -> Labelled:
    try:
        row = json.loads(line)
        query, relevant = row["query"], row["relevant"]
        usable = isinstance(query, str) and query.strip() and isinstance(relevant, list) and relevant
    except (ValueError, KeyError, TypeError):
        usable = False
    if not usable:
        raise LabelsError(f'{where}: write {{"query": "…", "relevant": ["a document\'s id", …]}} in each line.')
    return Labelled(query, frozenset(map(str, relevant)))
