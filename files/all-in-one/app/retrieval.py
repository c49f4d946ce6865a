"""What may answer a query: candidates by its words and by its vector, fused.

A search that has cores to spare reads side by side, over connections of their own: the words while the vector is
computed, then the chunks in Latin script beside those in others. Each sees the index of its own moment: where something
was changed meanwhile all is read again, one after the other, at one moment, as by a search that has company.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Concatenate, Literal

from app.languages import Languages, Vector, balance
from app.models import Loaded
from app.ranking import Term, best_per_document, fuse, telling, word_weight
from app.settings import Mode
from app.stages import Stages
from app.vectors import Vectors
from app.waiting import gone
from store import generations
from store import search as stored
from store.connection import Database, Pool, snapshot
from store.filters import Filter
from store.generations import Generation
from store.search import Candidate

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
    """`order` holds the best chunk of each document, best first; the mappings are per chunk.

    Only the first of the order have a passage: as many as are asked for, or may be judged.
    """

    order: list[int]
    fused: dict[int, float]
    similarities: dict[int, float]
    words: dict[int, float]
    weight: float
    passages: dict[int, dict[str, Any]]
    lexemes: list[str]


@dataclass(frozen=True)
class _Words:
    """The chunks with the query's words, what words weigh in it, and the generation's totals of that moment."""

    found: dict[int, Candidate]
    weight: float
    generation: Generation


class Retrieval:
    """Retrieves from the generation of the model that is given."""

    def __init__(self, pool: Pool, vectors: Vectors, *, judged: int, cores: int) -> None:
        """`judged` candidates have passages where something is to judge them. All searches share the `cores`."""
        self._pool = pool
        self._vectors = vectors
        self._judged = judged
        self._languages = Languages()
        self._cores = cores
        self._guard = threading.Lock()
        self._at_work = 0  # searches
        # Each of its threads holds a connection while it works, and waits for nothing else.
        self._beside = ThreadPoolExecutor(pool.max_size, "retrieval")

    def close(self) -> None:
        self._beside.shutdown()

    def run(self, loaded: Loaded, request: Request, stages: Stages) -> Retrieved:
        """UndefinedTable or NoGenerationError where the generation is dropped meanwhile."""
        reader = _Reader(
            loaded.generation,
            request,
            list(loaded.analyser.lexemes(request.query)),
            loaded.analyser.codes(request.query),
            0 if request.rerank == "off" else self._judged,
            self._languages,
        )
        stages.lap("analyse")
        with self._place() as spare:
            wide = spare and request.fusion == "hybrid"
            words = self._beside.submit(self._in_a_snapshot, reader.words) if wide else None
            try:
                vector = self._vector(loaded, request)
            except BaseException:
                if words:
                    words.cancel()
                raise
            stages.lap("embed")
            found = self._side_by_side(reader, vector, words, stages) if words else None
            return found or self._one_by_one(reader, vector, stages)

    def _vector(self, loaded: Loaded, request: Request) -> Vector | None:
        if request.fusion == "words":
            return None
        encoded = self._vectors.encode(loaded.embedder, [request.query], input_type="query", lane="query", gone=gone())
        vector: Vector = encoded.vectors[0]
        return vector

    def _side_by_side(
        self, reader: "_Reader", vector: Vector | None, words: Future[_Words], stages: Stages
    ) -> Retrieved | None:
        """None where something of it was changed meanwhile."""
        latin = self._beside.submit(self._in_a_snapshot, reader.nearest, vector, scripts=[True])
        others = self._in_a_snapshot(reader.nearest, vector, scripts=[False])
        near = stored.nearest_first(latin.result(), others)
        stages.lap("vectors")
        matching = words.result()
        stages.lap("words")
        found, whole = self._in_a_snapshot(reader.join, vector, near, matching)
        stages.lap("passages")
        return found if whole else None

    def _one_by_one(self, reader: "_Reader", vector: Vector | None, stages: Stages) -> Retrieved:
        with snapshot(self._pool) as database:
            near = reader.nearest(database, vector)
            stages.lap("vectors")
            matching = reader.words(database)
            stages.lap("words")
            found, _ = reader.join(database, vector, near, matching)
        stages.lap("passages")
        return found

    @contextmanager
    def _place(self) -> Iterator[bool]:
        """For one search; whether each of those at work has two cores."""
        with self._guard:
            self._at_work += 1
            spare = 2 * self._at_work <= self._cores
        try:
            yield spare
        finally:
            with self._guard:
                self._at_work -= 1

    def _in_a_snapshot[**P, T](
        self, read: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with snapshot(self._pool) as database:
            return read(database, *args, **kwargs)


@dataclass(frozen=True)
class _Reader:
    """Reads the index for one request. `codes` are among the lexemes; so many candidates may be `judged`."""

    generation: Generation
    request: Request
    lexemes: list[str]
    codes: set[str]
    judged: int
    languages: Languages

    @property
    def limit(self) -> int:
        """Chunks of each kind."""
        return max(CANDIDATES, 3 * self.request.top_k)

    def nearest(
        self, database: Database, vector: Vector | None, *, scripts: Sequence[bool] = (True, False)
    ) -> dict[int, Candidate]:
        """{chunk: candidate} of the nearest in each of the scripts, which are Latin or not."""
        if vector is None:
            return {}
        filters = self.request.filters
        return stored.nearest(database, self.generation, vector.tolist(), self.limit, filters, scripts=scripts)

    def words(self, database: Database) -> _Words:
        """Common words count only where there are no others."""
        generation = generations.get(database, self.generation.id)  # its totals of this moment
        if self.request.fusion == "vectors":
            return _Words({}, 0.0, generation)
        terms = self._terms(database, generation)
        chosen = telling(terms, generation.chunks)
        weight = word_weight(terms, generation.chunks)
        if self.request.fusion == "words":
            chosen, weight = chosen or [term for term in terms if term.chunks], 1.0
        if not weight:
            return _Words({}, weight, generation)
        weights = {term.lexeme: term.weight for term in chosen}
        found = stored.matching(database, generation, weights, self.limit, self.request.filters)
        return _Words(found, weight, generation)

    def join(
        self, database: Database, vector: Vector | None, near: dict[int, Candidate], words: _Words
    ) -> tuple[Retrieved, bool]:
        """The candidates of both kinds as one, and whether all that they need is there still."""
        hybrid = self.request.fusion == "hybrid"
        centroids = self.languages.centroids(database, words.generation) if hybrid else {}
        if not centroids:
            # All in one script, or as good as: its own nearest are the nearest.
            near = dict(islice(near.items(), self.limit))
        candidates = near | self._compared(database, vector, words.found, near)
        scores = {chunk: found.score for chunk, found in words.found.items() if chunk in candidates}
        fused = fuse(balance(candidates, vector, centroids), scores, words.weight)
        order = best_per_document(fused, candidates)
        read = order[: max(self.request.top_k, self.judged)]
        passages = stored.passages(database, words.generation, read, self.lexemes)
        found = Retrieved(
            [chunk for chunk in order if chunk in passages],
            fused,
            {chunk: found.similarity for chunk, found in candidates.items()},
            scores,
            words.weight,
            passages,
            self.lexemes,
        )
        return found, len(scores) == len(words.found) and len(passages) == len(read)

    def _compared(
        self, database: Database, vector: Vector | None, words: dict[int, Candidate], near: dict[int, Candidate]
    ) -> dict[int, Candidate]:
        """Those that have words alone, with their similarity, where they are there still."""
        alone = {chunk: found for chunk, found in words.items() if chunk not in near}
        if vector is None or not alone:
            return alone
        known = stored.similarities(database, self.generation, vector.tolist(), list(alone))
        return {chunk: alone[chunk]._replace(similarity=similarity) for chunk, similarity in known.items()}

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
