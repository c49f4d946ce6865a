"""What may answer a query: candidates by its words and by its vector, fused.

They are read side by side, over connections of their own: the words while the vector is computed, then the chunks in
Latin script beside those in others. Each reads the index of its own moment. What the last of them, which reads the
passages, no longer finds was changed meanwhile, and is read again.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

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

CANDIDATES = 100  # of each kind, at least
ATTEMPTS = 3  # to read what nobody changes meanwhile; then what is left of it is the answer

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


class _Changed(Exception):
    """Something that was found is no more."""


class Retrieval:
    """Retrieves from the generation of the model that is given."""

    def __init__(self, pool: Pool, vectors: Vectors, *, judged: int) -> None:
        """`judged` candidates have passages where something is to judge them."""
        self._pool = pool
        self._vectors = vectors
        self._judged = judged
        self._languages = Languages()
        # Each of its threads holds a connection while it works, and waits for nothing else.
        self._beside = ThreadPoolExecutor(pool.max_size, "retrieval")

    def close(self) -> None:
        self._beside.shutdown()

    def run(self, loaded: Loaded, request: Request, stages: Stages) -> Retrieved:
        """UndefinedTable or NoGenerationError where the generation is dropped meanwhile."""
        lexemes, codes = list(loaded.analyser.lexemes(request.query)), loaded.analyser.codes(request.query)
        stages.lap("analyse")
        reader = _Reader(self._pool, loaded.generation, request, lexemes, codes)
        words = self._beside.submit(reader.words)
        vector = None
        if request.fusion != "words":
            try:
                vector = self._vector(loaded, request.query)
            except BaseException:
                words.cancel()
                raise
        stages.lap("embed")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._retrieve(reader, vector, words, stages, must_be_whole=attempt < ATTEMPTS)
            except _Changed:
                words = self._beside.submit(reader.words)
        raise AssertionError("the last attempt takes what there is")

    def _vector(self, loaded: Loaded, query: str) -> Vector:
        encoded = self._vectors.encode(loaded.embedder, [query], input_type="query", lane="query", gone=gone())
        vector: Vector = encoded.vectors[0]
        return vector

    def _retrieve(
        self,
        reader: "_Reader",
        vector: Vector | None,
        matching: Future[_Words],
        stages: Stages,
        *,
        must_be_whole: bool,
    ) -> Retrieved:
        """_Changed where not all of it is there any more and it must be."""
        near: dict[int, Candidate] = {}
        if vector is not None:
            latin = self._beside.submit(reader.nearest, vector, latin=True)
            others = reader.nearest(vector, latin=False)
            near = stored.nearest_first(latin.result(), others)
        stages.lap("vectors")
        words = matching.result()
        stages.lap("words")
        request = reader.request
        with _snapshot(self._pool) as database:
            hybrid = request.fusion == "hybrid"
            centroids = self._languages.centroids(database, words.generation) if hybrid else {}
            if not centroids:
                # All in one script, or as good as: its own nearest are the nearest.
                near = dict(islice(near.items(), reader.limit))
            candidates = reader.compared(database, words.found, near, vector)
            scores = {chunk: found.score for chunk, found in words.found.items() if chunk in candidates}
            fused = fuse(balance(candidates, vector, centroids), scores, words.weight)
            order = best_per_document(fused, candidates)
            read = order[: max(request.top_k, 0 if request.rerank == "off" else self._judged)]
            passages = stored.passages(database, words.generation, read, reader.lexemes)
        stages.lap("passages")
        if must_be_whole and (len(scores) < len(words.found) or len(passages) < len(read)):
            raise _Changed
        order = [chunk for chunk in order if chunk in passages]
        similarities = {chunk: found.similarity for chunk, found in candidates.items()}
        return Retrieved(order, fused, similarities, scores, words.weight, passages, reader.lexemes)


@dataclass(frozen=True)
class _Reader:
    """Reads the index for one request, which names the documents that are allowed. `codes` are among the lexemes."""

    pool: Pool
    generation: Generation
    request: Request
    lexemes: list[str]
    codes: set[str]

    @property
    def limit(self) -> int:
        """Chunks of each kind."""
        return max(CANDIDATES, 3 * self.request.top_k)

    def nearest(self, vector: Vector, *, latin: bool) -> dict[int, Candidate]:
        """{chunk: candidate} of the nearest in Latin script, or of those that are not."""
        filters = self.request.filters
        with _snapshot(self.pool) as database:
            return stored.nearest_in_script(
                database, self.generation, vector.tolist(), self.limit, filters, latin=latin
            )

    def words(self) -> _Words:
        """Common words count only where there are no others."""
        with _snapshot(self.pool) as database:
            generation = generations.get(database, self.generation.id)
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

    def compared(
        self, database: Database, words: dict[int, Candidate], near: dict[int, Candidate], vector: Vector | None
    ) -> dict[int, Candidate]:
        """All of them with their similarity; those with words alone where they are still there."""
        if vector is None:
            return words
        alone = [chunk for chunk in words if chunk not in near]
        known = stored.similarities(database, self.generation, vector.tolist(), alone) if alone else {}
        return {chunk: words[chunk]._replace(similarity=similarity) for chunk, similarity in known.items()} | near

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


@contextmanager
def _snapshot(pool: Pool) -> Iterator[Database]:
    """The database as it is at one moment."""
    with pool.connection() as database, database.transaction():
        database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield database
