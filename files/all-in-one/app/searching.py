"""One search: the query's vector and words, the candidates of both, fused, then judged by the reranker in time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.models import Loaded
from app.ranking import Term, best_per_document, fuse, reorder, word_weight
from app.vectors import Vectors
from app.waiting import gone
from pipeline.errors import OverloadedError
from store import generations
from store import search as stored
from store.connection import Database, Pool
from store.filters import Filter
from store.generations import Generation

CANDIDATES = 100  # of each kind, at least


@dataclass(frozen=True)
class Request:
    """`fusion` is hybrid or vectors."""

    query: str
    top_k: int
    rerank: bool
    fusion: str
    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True)
class _Candidates:
    """`order` holds the best chunk of each document, best first; the mappings are per chunk."""

    order: list[int]
    fused: dict[int, float]
    similarities: dict[int, float]
    words: dict[int, float]
    weight: float
    passages: dict[int, dict[str, Any]]
    generation: Generation


class Search:
    """Searches the active generation."""

    def __init__(self, pool: Pool, vectors: Vectors, *, rerank_top_k: int, rerank_deadline: float) -> None:
        self._pool = pool
        self._vectors = vectors
        self._rerank_top_k = rerank_top_k
        self._rerank_deadline = rerank_deadline

    def run(self, loaded: Loaded, request: Request) -> dict[str, Any]:
        """The body of the answer: results, timings_ms, rerank, fusion, generation."""
        clock = _Clock()
        with clock.time("embed"):
            vector = self.query_vector(loaded, request.query)
        with clock.time("analyse"):
            lexemes = list(loaded.analyser.lexemes(request.query)) if request.fusion == "hybrid" else []
            codes = loaded.analyser.codes(request.query) if lexemes else set()
        with clock.time("retrieve"):
            found = self._retrieve(loaded, request, vector, lexemes, codes)
        with clock.time("rerank"):
            order, scores, report = self._rerank(loaded, request, found)
        return {
            "results": [_result(chunk, found, scores) for chunk in order[: request.top_k]],
            "timings_ms": clock.finish(),
            "rerank": report,
            "fusion": {"mode": request.fusion, "word_weight": round(found.weight, 3)},
            "generation": found.generation.id,
        }

    def query_vector(self, loaded: Loaded, query: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        encoded = self._vectors.encode(loaded.embedder, [query], input_type="query", lane="query", gone=gone())
        vector: np.ndarray[Any, Any] = encoded.vectors[0]
        return vector

    def _retrieve(
        self, loaded: Loaded, request: Request, vector: np.ndarray[Any, Any], lexemes: list[str], codes: set[str]
    ) -> _Candidates:
        limit = max(CANDIDATES, 3 * request.top_k)
        with self._pool.connection() as database, database.transaction():
            # One picture of the index for all that follows.
            database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            generation = generations.get(database, loaded.generation.id)  # its totals of this moment
            similarities = stored.nearest(database, generation, vector.tolist(), limit, request.filters)
            terms = _terms(database, generation, lexemes, codes)
            weight = word_weight(terms, generation.chunks)
            words: dict[int, float] = {}
            if weight > 0:
                weights = {term.lexeme: term.weight for term in terms if term.chunks}
                words = stored.matching(database, generation, weights, limit, request.filters)
                far = [chunk for chunk in words if chunk not in similarities]
                similarities |= stored.similarities(database, generation, vector.tolist(), far)
            fused = fuse(similarities, words, weight)
            owners = stored.owners(database, generation, list(fused))
            order = best_per_document(fused, owners)
            passages = stored.passages(database, generation, order[: max(request.top_k, self._rerank_top_k)])
        return _Candidates(
            [chunk for chunk in order if chunk in passages], fused, similarities, words, weight, passages, generation
        )

    def _rerank(
        self, loaded: Loaded, request: Request, found: _Candidates
    ) -> tuple[list[int], dict[int, float], dict[str, Any]]:
        """(order, {chunk: reranker's score}, what /search says about it)."""
        judged = found.order[: self._rerank_top_k]
        if refusal := _reason_not_to(loaded, request, judged):
            return found.order, {}, {"ran": False, **refusal, "candidates": 0}
        assert loaded.reranker is not None
        deadline = time.monotonic() + self._rerank_deadline
        texts = [_judged_text(found.passages[chunk]) for chunk in judged]
        try:
            scores = loaded.reranker.score(request.query, texts, deadline=deadline, lane="query", gone=gone())
        except OverloadedError as error:
            refusal = {"reason": "overloaded", "why": f"overloaded: {error}"}
            return found.order, {}, {"ran": False, **refusal, "candidates": 0}
        in_time = {chunk: score for chunk, score in zip(judged, scores, strict=True) if score is not None}
        if not in_time:
            refusal = {"reason": "deadline", "why": "the deadline passed before the first pair"}
            return found.order, {}, {"ran": False, **refusal, "candidates": 0}
        order = reorder(judged, scores) + found.order[len(judged) :]
        if len(in_time) == len(judged):
            reason, why = "asked", "asked for"
        else:
            reason, why = "deadline", "the deadline passed on the way; the rest keeps its order"
        return order, in_time, {"ran": True, "reason": reason, "why": why, "candidates": len(in_time)}


class _Clock:
    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spans: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._spans[name] = round((time.perf_counter() - started) * 1000, 2)

    def finish(self) -> dict[str, float]:
        return self._spans | {"total": round((time.perf_counter() - self._started) * 1000, 2)}


def _terms(database: Database, generation: Generation, lexemes: list[str], codes: set[str]) -> list[Term]:
    found = stored.frequencies(database, generation, lexemes) if lexemes else {}
    return [
        Term(
            lexeme,
            found.get(lexeme, 0),
            stored.inverse_frequency(generation, found.get(lexeme, 0)),
            lexeme in codes,
        )
        for lexeme in lexemes
    ]


def _reason_not_to(loaded: Loaded, request: Request, judged: list[int]) -> dict[str, str] | None:
    """{reason, why}: a word for programs, of which there are few, and a sentence for people."""
    if not request.rerank:
        return {"reason": "off", "why": "not asked for"}
    if loaded.reranker is None:
        return {"reason": "unavailable", "why": f"reranking is off. {loaded.reranker_degraded}"}
    if len(judged) < 2:
        return {"reason": "too_few", "why": f"{len(judged)} candidates leave nothing to order"}
    return None


def _judged_text(passage: dict[str, Any]) -> str:
    return f"{passage['title']}\n{passage['text']}" if passage["title"] else str(passage["text"])


def _result(chunk: int, found: _Candidates, reranked: dict[int, float]) -> dict[str, Any]:
    passage = found.passages[chunk]
    scores = {
        "fused": round(found.fused[chunk], 6),
        "vector": round(found.similarities[chunk], 6),
        "words": round(found.words.get(chunk, 0.0), 6),
        "rerank": reranked.get(chunk),
    }
    return {**passage, "score": reranked.get(chunk, found.fused[chunk]), "scores": scores}
