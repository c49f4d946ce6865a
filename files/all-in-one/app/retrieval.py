"""What may answer a query: candidates by its words and by its vector, fused.

A search by both that finds cores to spare reads side by side, over two connections which see the same moment: the words
while the vector is computed, then the chunks in Latin script beside those in others. Others read one after the other,
which is less work.
"""

import threading
from collections.abc import Container, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from psycopg.errors import DiskFull, InvalidParameterValue, LockNotAvailable, UndefinedObject

from app.languages import Languages, Vector, balance
from app.models import Loaded
from app.ranking import Term, best_per_document, fuse, telling, word_weight
from app.settings import Mode
from app.stages import Stages
from app.vectors import Vectors
from app.waiting import gone
from store import generations
from store import search as stored
from store.connection import Database, Pool
from store.filters import Filter
from store.generations import Generation
from store.search import Candidate
from store.vectors import Matrix, vector_text

CANDIDATES = 100  # of each kind, at least

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
class Retrieved:
    """`order` holds the best chunk of each document, best first, as many as were asked for; the rest is per chunk."""

    order: list[int]
    fused: dict[int, float]
    similarities: dict[int, float]
    words: dict[int, float]
    weight: float
    passages: dict[int, dict[str, Any]]
    lexemes: list[str]


@dataclass(frozen=True)
class _Words:
    """The chunks with the query's words and their vectors, what words weigh in it, and the generation's totals then."""

    found: dict[int, Candidate]
    vectors: Matrix
    weight: float
    generation: Generation

    def compared(self, vector: Vector | None, near: Container[int]) -> dict[int, Candidate]:
        """Those that are not `near` already, with their similarity where there is a `vector`."""
        # Summed row by row: a matrix product may give equal rows unequal sums.
        similarities = [0.0] * len(self.found) if vector is None else (self.vectors * vector).sum(axis=1).tolist()
        return {
            chunk: found._replace(similarity=similarity)
            for (chunk, found), similarity in zip(self.found.items(), similarities, strict=True)
            if chunk not in near
        }


class Retrieval:
    """Retrieves from the generation of the model that is given."""

    def __init__(self, pool: Pool, vectors: Vectors, *, cores: int) -> None:
        """`cores` are what all searches share."""
        self._pool = pool
        self._vectors = vectors
        self._languages = Languages()
        # Each search has two cores, and two connections.
        self._wide = min(cores, pool.max_size) // 2
        self._guard = threading.Lock()
        self._at_work = 0  # searches that retrieve
        self._beside = ThreadPoolExecutor(pool.max_size, "retrieval")

    def close(self) -> None:
        """Once the pool is closed, which ends what is still read."""
        self._beside.shutdown(wait=False, cancel_futures=True)

    def run(self, loaded: Loaded, request: Request, stages: Stages, *, documents: int) -> Retrieved:
        """The best `documents`. UndefinedTable or NoGenerationError where the generation is dropped meanwhile."""
        lexemes, codes = list(loaded.analyser.lexemes(request.query)), loaded.analyser.codes(request.query)
        reader = _Reader(loaded.generation, request, lexemes, codes, self._languages, documents)
        stages.lap("analyse")
        with self._place() as spare:
            if spare and request.fusion == "hybrid":
                # Where the disk has no room for the file by which a moment is shared, somebody is about to take the
                # tables away, or the helper's view ended early: one by one meets what ended it.
                with suppress(DiskFull, LockNotAvailable, UndefinedObject, InvalidParameterValue):
                    return self._side_by_side(loaded, reader, stages)
            return self._one_by_one(loaded, reader, stages)

    def _side_by_side(self, loaded: Loaded, reader: "_Reader", stages: Stages) -> Retrieved:
        moment: Future[str] = Future()
        wanted: Future[str] = Future()
        helper = self._beside.submit(self._words_and_latin, reader, moment, wanted)
        try:
            vector = self._vector(loaded, reader.request.query)
            text = vector_text(vector.tolist())  # once for both
            either: list[Future[Any]] = [helper, moment]
            wait(either, return_when=FIRST_COMPLETED)
            if helper.done():
                helper.result()  # raises: without a vector it ends only by what went wrong
            with stored.view(self._pool, reader.generation, snapshot=moment.result()) as database:
                stages.lap("embed")
                # Not before: the helper's view, whose moment this one has, lasts until it has a vector.
                wanted.set_result(text)
                others = reader.nearest(database, text, latin=False)
                words, latin = helper.result()
                stages.lap("vectors")
                stages.lap("words")  # nothing: they were read meanwhile
                found = reader.join(database, vector, stored.nearest_first(latin, others), words)
        finally:
            helper.cancel()
            wanted.cancel()
        stages.lap("passages")
        return found

    def _words_and_latin(
        self, reader: "_Reader", moment: Future[str], wanted: Future[str]
    ) -> tuple[_Words, dict[int, Candidate]]:
        """The half of a search that begins without a vector. Its view is the one that the other half shares."""
        with stored.view(self._pool, reader.generation) as database:
            moment.set_result(stored.share(database))
            words = reader.words(database)
            return words, reader.nearest(database, wanted.result(), latin=True)

    def _one_by_one(self, loaded: Loaded, reader: "_Reader", stages: Stages) -> Retrieved:
        vector = None if reader.request.fusion == "words" else self._vector(loaded, reader.request.query)
        stages.lap("embed")
        with stored.view(self._pool, reader.generation) as database:
            near = {} if vector is None else reader.nearest(database, vector_text(vector.tolist()))
            stages.lap("vectors")
            matching = reader.words(database)
            stages.lap("words")
            found = reader.join(database, vector, near, matching)
        stages.lap("passages")
        return found

    def _vector(self, loaded: Loaded, query: str) -> Vector:
        encoded = self._vectors.encode(loaded.embedder, [query], input_type="query", lane="query", gone=gone())
        vector: Vector = encoded.vectors[0]
        return vector

    @contextmanager
    def _place(self) -> Iterator[bool]:
        """For one search; whether all that retrieve may read side by side."""
        with self._guard:
            self._at_work += 1
            spare = self._at_work <= self._wide
        try:
            yield spare
        finally:
            with self._guard:
                self._at_work -= 1


@dataclass(frozen=True)
class _Reader:
    """Reads the index for one request. `codes` are among the lexemes; so many `documents` get a passage."""

    generation: Generation
    request: Request
    lexemes: list[str]
    codes: set[str]
    languages: Languages
    documents: int

    @property
    def limit(self) -> int:
        """Chunks of each kind."""
        return max(CANDIDATES, 3 * self.request.top_k)

    def nearest(self, database: Database, vector: str, *, latin: bool | None = None) -> dict[int, Candidate]:
        """{chunk: candidate} of the nearest of each script, or of one."""
        return stored.nearest(database, self.generation, vector, self.limit, self.request.filters, latin=latin)

    def words(self, database: Database) -> _Words:
        """Common words count only where there are no others."""
        generation = generations.get(database, self.generation.id)  # its totals of this moment
        terms = [] if self.request.fusion == "vectors" else self._terms(database, generation)
        chosen, weight = telling(terms, generation.chunks), word_weight(terms, generation.chunks)
        if self.request.fusion == "words":
            chosen, weight = chosen or [term for term in terms if term.chunks], 1.0
        weights = {term.lexeme: term.weight for term in chosen} if weight else {}
        found, vectors = stored.matching(database, generation, weights, self.limit, self.request.filters)
        return _Words(found, vectors, weight, generation)

    def join(self, database: Database, vector: Vector | None, near: dict[int, Candidate], words: _Words) -> Retrieved:
        """The candidates of both kinds as one."""
        hybrid = self.request.fusion == "hybrid"
        centroids = self.languages.centroids(database, words.generation) if hybrid else {}
        if not centroids:
            # All in one script, or as good as: its own nearest are the nearest.
            near = dict(islice(near.items(), self.limit))
        candidates = near | words.compared(vector, near)
        scores = {chunk: found.score for chunk, found in words.found.items()}
        fused = fuse(balance(candidates, vector, centroids), scores, words.weight)
        order = best_per_document(fused, candidates)[: self.documents]
        return Retrieved(
            order,
            fused,
            {chunk: found.similarity for chunk, found in candidates.items()},
            scores,
            words.weight,
            stored.passages(database, words.generation, order, self.lexemes),
            self.lexemes,
        )

    def _terms(self, database: Database, generation: Generation) -> list[Term]:
        found = stored.frequencies(database, generation, self.lexemes) if self.lexemes else {}
        return [
            Term(
                lexeme,
                found.get(lexeme, 0),
                stored.inverse_frequency(generation, found.get(lexeme, 0)),
                lexeme in self.codes,
            )
            for lexeme in self.lexemes
        ]
