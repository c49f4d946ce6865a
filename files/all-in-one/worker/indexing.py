"""One document to what is stored of it, in one generation."""

from collections.abc import Callable

from pipeline.embedder import Embedder
from store.generations import Generation
from store.jobs import Item
from store.results import IndexedChunk
from text.analyser import Analyser
from text.chunker import Chunk, Chunker

SLICE = 8  # passages embedded between two looks at whether to go on


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

    def serves(self, generation: Generation, embedder: Embedder) -> bool:
        """True while it computes for this generation, with this model."""
        return self.generation.id == generation.id and self._embedder is embedder

    def prove_alive(self) -> None:
        """One real inference."""
        self._embedder.encode_array(["alive"], input_type="passage")

    def index(self, item: Item, go_on: Callable[[], bool]) -> list[IndexedChunk]:
        """All chunks of the item's document. Interrupted as soon as `go_on()` is False between two slices."""
        chunks = self._chunker.cut(item.text)
        indexed: list[IndexedChunk] = []
        for start in range(0, len(chunks), SLICE):
            if not go_on():
                raise Interrupted
            indexed += self._index_slice(item.title, chunks[start : start + SLICE])
        return indexed

    def _index_slice(self, title: str, chunks: list[Chunk]) -> list[IndexedChunk]:
        passages = [self._chunker.passage(title, chunk.text) for chunk in chunks]
        vectors = self._embedder.encode_with_info(passages, input_type="passage", lane="bulk").vectors
        return [
            IndexedChunk(chunk.start, chunk.end, chunk.text, chunk.tokens, vector.tolist(), lexemes)
            for chunk, vector, lexemes in zip(chunks, vectors, map(self._analyser.lexemes, passages), strict=True)
        ]
