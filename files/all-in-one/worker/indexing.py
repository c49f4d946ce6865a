"""One document to what is stored of it, in one generation."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from pipeline.embedder import Embedder
from store.generations import Generation
from store.jobs import Item
from store.results import IndexedChunk
from text.analyser import Analyser, Word
from text.chunker import Chunker

SLICE = 8  # passages embedded between two looks at whether to go on

Known = Callable[[Collection[bytes]], Mapping[bytes, Sequence[float]]]


class Interrupted(Exception):
    """The worker was told to stop, or lost the item's lease, in the middle of a document."""


class Indexer:
    """Chunks, vectors and lexemes by the model of one generation."""

    def __init__(self, generation: Generation, embedder: Embedder, analyser: Analyser) -> None:
        """`embedder` must make vectors of the generation's embedding space."""
        self.generation = generation
        self._embedder = embedder
        self._chunker = Chunker(embedder)
        self._analyser = analyser
        self.embedded = 0  # passages of the last document whose vectors had to be computed

    def serves(self, generation: Generation, embedder: Embedder) -> bool:
        """True while it computes for this generation, with this model."""
        return self.generation.id == generation.id and self._embedder is embedder

    @property
    def embedder(self) -> Embedder:
        return self._embedder

    def prove_alive(self) -> None:
        """One real inference."""
        self._embedder.encode_array(["alive"], input_type="passage")

    def index(self, item: Item, go_on: Callable[[], bool], known: Known) -> list[IndexedChunk]:
        """All chunks of the item's document. Interrupted as soon as `go_on()` is False between two slices.

        `known(passage hashes)` gives the vectors that need not be computed again.
        """
        chunks = self._chunker.cut(item.text)
        passages = [self._chunker.passage(item.title, chunk.text) for chunk in chunks]
        vectors = self._vectors(passages, go_on, known)
        indexed: list[IndexedChunk] = []
        for chunk, passage in zip(chunks, passages, strict=True):
            if len(indexed) % SLICE == 0 and not go_on():
                raise Interrupted
            key = passage_hash(passage)
            words = self._analyser.words(passage)
            lexemes, places = Counter(word.lexeme for word in words), standing(words, len(passage) - len(chunk.text))
            indexed.append(
                IndexedChunk(chunk.start, chunk.end, chunk.text, chunk.tokens, vectors[key], lexemes, places, key)
            )
        return indexed

    def _vectors(self, passages: list[str], go_on: Callable[[], bool], known: Known) -> dict[bytes, Sequence[float]]:
        """{passage hash: vector}. The same passage is embedded once, and not at all where the generation holds it."""
        wanted = {passage_hash(passage): passage for passage in passages}
        vectors = dict(known(list(wanted)))
        missing = [key for key in wanted if key not in vectors]
        for start in range(0, len(missing), SLICE):
            if not go_on():
                raise Interrupted
            keys = missing[start : start + SLICE]
            texts = [wanted[key] for key in keys]
            computed = self._embedder.encode_with_info(texts, input_type="passage", lane="bulk").vectors
            vectors |= {key: vector.tolist() for key, vector in zip(keys, computed, strict=True)}
        self.embedded = len(missing)
        return vectors


def standing(words: Sequence[Word], before: int = 0) -> dict[str, list[tuple[int, int]]]:
    """{lexeme: where it stands} in what follows the first `before` characters of a text, counted from there."""
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for word in words:
        if word.start >= before:
            places[word.lexeme].append((word.start - before, word.end - before))
    return places


def passage_hash(passage: str) -> bytes:
    return hashlib.sha256(passage.encode("utf-8")).digest()
