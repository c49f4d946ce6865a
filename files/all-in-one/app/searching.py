"""One search: what the query retrieves, judged by the reranker in time."""

import time
from collections.abc import Callable
from typing import Any

from psycopg.errors import DeadlockDetected, UndefinedTable

from app.models import Loaded, describe
from app.ranking import lead, reorder
from app.reranking import Reranking
from app.retrieval import Request, Retrieval, Retrieved
from app.stages import Stages
from store.errors import NoGenerationError

PATIENCE = 5.0  # seconds until the model of another generation is loaded, where the one searched was dropped


class Search:
    """Searches the generation whose model is loaded."""

    def __init__(self, retrieval: Retrieval, reranking: Reranking) -> None:
        self._retrieval = retrieval
        self._reranking = reranking

    def close(self) -> None:
        self._retrieval.close()

    def run(self, get: Callable[[], Loaded], request: Request) -> dict[str, Any]:
        """The body of the answer: results, timings_ms, rerank, fusion, generation, models. `get` gives what serves.

        All of it comes from one generation and the model that made it. One that is dropped in the middle gives way to
        the one that serves then.
        """
        loaded, give_up = get(), time.monotonic() + PATIENCE
        while True:
            try:
                return self._answer(loaded, request)
            except (UndefinedTable, DeadlockDetected, NoGenerationError):
                while get() is loaded:
                    if time.monotonic() > give_up:
                        raise
                    time.sleep(0.05)
                loaded = get()

    def _answer(self, loaded: Loaded, request: Request) -> dict[str, Any]:
        stages = Stages()
        judged = 0 if request.rerank == "off" else self._reranking.top_k
        found = self._retrieval.run(loaded, request, stages, documents=max(request.top_k, judged))
        order, scores, report = self._rerank(loaded, request, found)
        stages.lap("rerank")
        results = [
            found.passages[chunk]
            | _scores(chunk, found, scores, shadow=request.rerank == "shadow")
            | _marks(loaded, found.lexemes, found.passages[chunk])
            for chunk in order[: request.top_k]
        ]
        stages.lap("highlight")
        timings = stages.finish()
        return {
            "results": results,
            "timings_ms": timings,
            "rerank": report | {"ms": timings["rerank"]},
            "fusion": {"mode": request.fusion, "word_weight": round(found.weight, 3)},
            "generation": loaded.generation.id,
            "models": {
                "embedding": describe(loaded.embedder)["release"],
                "reranker": describe(loaded.reranker)["release"] if loaded.reranker else None,
            },
        }

    def _rerank(
        self, loaded: Loaded, request: Request, found: Retrieved
    ) -> tuple[list[int], dict[int, float], dict[str, Any]]:
        """(order, {chunk: reranker's score}, what /search says about it)."""
        judged = found.order[: self._reranking.top_k]
        texts = [_judged_text(found.passages[chunk]) for chunk in judged]
        ahead = lead(found.fused[chunk] for chunk in judged) if request.fusion == "hybrid" else None
        judgement = self._reranking.judge(loaded, request.rerank, request.query, texts, ahead)
        report = judgement.report | {"lead": None if ahead is None else round(ahead, 6)}
        scores = {chunk: score for chunk, score in zip(judged, judgement.scores, strict=True) if score is not None}
        order = reorder(judged, judgement.scores) + found.order[len(judged) :]
        if request.rerank != "shadow" or not report["ran"]:
            return order, scores, report
        would = [found.passages[chunk]["document_id"] for chunk in order[: request.top_k]]
        before = [found.passages[chunk]["document_id"] for chunk in found.order[: request.top_k]]
        shadow = {"first_changed": would[:1] != before[:1], "changed": would != before, "order": would}
        return found.order, scores, report | {"shadow": shadow}


def _judged_text(passage: dict[str, Any]) -> str:
    return f"{passage['title']}\n{passage['text']}" if passage["title"] else str(passage["text"])


def _scores(chunk: int, found: Retrieved, reranked: dict[int, float], *, shadow: bool) -> dict[str, Any]:
    """The score that ranked a chunk, and all of them; 0 for what was not compared, None for what was not judged."""
    scores = {
        "fused": round(found.fused[chunk], 6),
        "vector": round(found.similarities[chunk], 6),
        "words": round(found.words.get(chunk, 0.0), 6),
        "rerank": reranked.get(chunk),
    }
    score = found.fused[chunk] if shadow else reranked.get(chunk, found.fused[chunk])
    return {"score": score, "scores": scores}


def _marks(loaded: Loaded, lexemes: list[str], passage: dict[str, Any]) -> dict[str, Any]:
    """Where the query's words stand in the text and the title: [start, end] in characters, ascending."""
    mark, known = loaded.analyser.highlights, passage["highlights"]
    return {
        "highlights": mark(passage["text"], lexemes) if known is None else known,
        "title_highlights": mark(passage["title"] or "", lexemes),
    }
