"""One search: the query's vector and words, the candidates of both, fused, then judged by the reranker in time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from psycopg.errors import DeadlockDetected, UndefinedTable

from app.languages import Languages, Vector, balance
from app.models import Loaded, describe
from app.ranking import Term, best_per_document, fuse, lead, reorder, telling, word_weight
from app.reranking import Reranking
from app.settings import Mode
from app.vectors import Vectors
from app.waiting import gone
from store import generations
from store import search as stored
from store.connection import Database, Pool
from store.errors import NoGenerationError
from store.filters import Filter
from store.generations import Generation
from store.search import Candidate

CANDIDATES = 100  # of each kind, at least
PATIENCE = 5.0  # seconds until the model of another generation is loaded, where the one searched was dropped

Fusion = Literal["hybrid", "vectors", "words"]


@dataclass(frozen=True)
class Request:
    """`fusion` vectors or words leaves the other out."""

    query: str
    top_k: int
    rerank: Mode
    fusion: Fusion
    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True)
class _Query:
    """What of a query is searched for. Without `vector` only words are; `codes` are among the lexemes."""

    vector: Vector | None
    lexemes: list[str]
    codes: set[str]


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


@dataclass(frozen=True)
class _Index:
    """The index as one transaction sees it, for one request: `limit` chunks of each kind, of documents it allows."""

    database: Database
    generation: Generation
    request: Request
    limit: int

    def nearest(self, query: _Query, *, of_each_script: bool) -> dict[int, Candidate]:
        """{chunk: candidate} of the nearest chunks, or of the nearest of each script, however far those of one are."""
        if query.vector is None:
            return {}
        vector = query.vector.tolist()
        found = stored.nearest(self.database, self.generation, vector, self.limit, self.request.filters)
        return found if of_each_script else dict(islice(found.items(), self.limit))

    def matching(self, query: _Query) -> tuple[dict[int, Candidate], float]:
        """({chunk: candidate}, what words weigh in this query). Common words count only where there are no others."""
        if self.request.fusion == "vectors":
            return {}, 0.0
        terms, chunks = self._terms(query), self.generation.chunks
        chosen = telling(terms, chunks)
        weight = word_weight(terms, chunks)
        if self.request.fusion == "words":
            chosen, weight = chosen or [term for term in terms if term.chunks], 1.0
        if not weight:
            return {}, weight
        weights = {term.lexeme: term.weight for term in chosen}
        vector = None if query.vector is None else query.vector.tolist()
        limit, filters = self.limit, self.request.filters
        return stored.matching(self.database, self.generation, weights, limit, filters, vector=vector), weight

    def _terms(self, query: _Query) -> list[Term]:
        found = stored.frequencies(self.database, self.generation, query.lexemes) if query.lexemes else {}
        return [
            Term(
                lexeme,
                found.get(lexeme, 0),
                stored.inverse_frequency(self.generation, found.get(lexeme, 0)),
                lexeme in query.codes,
            )
            for lexeme in query.lexemes
        ]


class Search:
    """Searches the generation whose model is loaded."""

    def __init__(self, pool: Pool, vectors: Vectors, reranking: Reranking) -> None:
        self._pool = pool
        self._vectors = vectors
        self._reranking = reranking
        self._languages = Languages()

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
        clock = _Clock()
        vector = None if request.fusion == "words" else self._query_vector(loaded, request.query)
        clock.lap("embed")
        query = _Query(vector, list(loaded.analyser.lexemes(request.query)), loaded.analyser.codes(request.query))
        clock.lap("analyse")
        found = self._retrieve(loaded, request, query, clock)
        order, scores, report = self._rerank(loaded, request, found)
        clock.lap("rerank")
        results = [
            found.passages[chunk]
            | _scores(chunk, found, scores, shadow=request.rerank == "shadow")
            | _marks(loaded, query, found.passages[chunk])
            for chunk in order[: request.top_k]
        ]
        clock.lap("highlight")
        timings = clock.finish()
        return {
            "results": results,
            "timings_ms": timings,
            "rerank": report | {"ms": timings["rerank"]},
            "fusion": {"mode": request.fusion, "word_weight": round(found.weight, 3)},
            "generation": found.generation.id,
            "models": {
                "embedding": describe(loaded.embedder)["release"],
                "reranker": describe(loaded.reranker)["release"] if loaded.reranker else None,
            },
        }

    def _query_vector(self, loaded: Loaded, query: str) -> Vector:
        encoded = self._vectors.encode(loaded.embedder, [query], input_type="query", lane="query", gone=gone())
        vector: Vector = encoded.vectors[0]
        return vector

    def _retrieve(self, loaded: Loaded, request: Request, query: _Query, clock: "_Clock") -> _Candidates:
        with self._pool.connection() as database, database.transaction():
            # One picture of the index for all that follows.
            database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            generation = generations.get(database, loaded.generation.id)  # its totals of this moment
            clock.lap("connect")
            centroids = self._languages.centroids(database, generation) if request.fusion == "hybrid" else {}
            index = _Index(database, generation, request, max(CANDIDATES, 3 * request.top_k))
            near = index.nearest(query, of_each_script=bool(centroids))
            clock.lap("vectors")
            matching, weight = index.matching(query)
            clock.lap("words")
            candidates = matching | near
            words = {chunk: found.score for chunk, found in matching.items()}
            fused = fuse(balance(candidates, query.vector, centroids), words, weight)
            order = best_per_document(fused, candidates)
            judged = 0 if request.rerank == "off" else self._reranking.top_k
            read = order[: max(request.top_k, judged)]
            passages = stored.passages(database, generation, read, query.lexemes)
        clock.lap("passages")
        similarities = {chunk: found.similarity for chunk, found in candidates.items()}
        order = [chunk for chunk in order if chunk in passages]
        return _Candidates(order, fused, similarities, words, weight, passages, generation)

    def _rerank(
        self, loaded: Loaded, request: Request, found: _Candidates
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


class _Clock:
    """The time from lap to lap, all of which together are the whole."""

    def __init__(self) -> None:
        self._started = self._lap = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = round((now - self._lap) * 1000, 2)
        self._lap = now

    def finish(self) -> dict[str, float]:
        return self._laps | {"total": round((self._lap - self._started) * 1000, 2)}


def _judged_text(passage: dict[str, Any]) -> str:
    return f"{passage['title']}\n{passage['text']}" if passage["title"] else str(passage["text"])


def _scores(chunk: int, found: _Candidates, reranked: dict[int, float], *, shadow: bool) -> dict[str, Any]:
    """The score that ranked a chunk, and all of them; 0 for what was not compared, None for what was not judged."""
    scores = {
        "fused": round(found.fused[chunk], 6),
        "vector": round(found.similarities[chunk], 6),
        "words": round(found.words.get(chunk, 0.0), 6),
        "rerank": reranked.get(chunk),
    }
    score = found.fused[chunk] if shadow else reranked.get(chunk, found.fused[chunk])
    return {"score": score, "scores": scores}


def _marks(loaded: Loaded, query: _Query, passage: dict[str, Any]) -> dict[str, Any]:
    """Where the query's words stand in the text and the title: [start, end] in characters, ascending."""
    mark, known = loaded.analyser.highlights, passage["highlights"]
    return {
        "highlights": mark(passage["text"], query.lexemes) if known is None else known,
        "title_highlights": mark(passage["title"] or "", query.lexemes),
    }
