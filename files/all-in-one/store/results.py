"""What a worker computed for an item, written at once: chunks, vectors, lexemes, statistics and the item's state."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from store.connection import Database
from store.documents import lock_statistics, remove_chunks
from store.generations import Generation
from store.jobs import Item
from store.statements import statement


@dataclass(frozen=True)
class IndexedChunk:
    """`start` and `end` are character offsets into the document's text, `vector` has the generation's dimension."""

    start: int
    end: int
    content: str
    tokens: int
    vector: Sequence[float]
    lexemes: Counter[str]


def complete(
    database: Database, item: Item, worker: str, generation: Generation, chunks: Sequence[IndexedChunk]
) -> bool:
    """Replace what the generation holds of the document. False, and nothing written, if the item is not this worker's.

    A worker that lost its lease, or whose document changed meanwhile, so leaves no trace.
    """
    with database.transaction():
        document = database.execute(
            "SELECT content_hash FROM documents WHERE id = %s FOR UPDATE", [item.document_id]
        ).fetchone()
        if document is None or document["content_hash"] != item.content_hash:
            return False
        finished = database.execute(
            "UPDATE items SET state = 'done', reason = NULL, worker = NULL, lease_until = NULL, finished_at = now()"
            " WHERE id = %s AND worker = %s AND state = 'running'",
            [item.id, worker],
        )
        if finished.rowcount != 1:
            return False
        remove_chunks(database, generation, item.document_id)
        _insert(database, generation, item, chunks)
        return True


def _insert(database: Database, generation: Generation, item: Item, chunks: Sequence[IndexedChunk]) -> None:
    lock_statistics(database, generation)
    database.execute(
        statement("insert_chunks", **generation.tables),
        {
            "document": item.document_id,
            "starts": [chunk.start for chunk in chunks],
            "ends": [chunk.end for chunk in chunks],
            "contents": [chunk.content for chunk in chunks],
            "tokens": [chunk.tokens for chunk in chunks],
            "vectors": [vector_text(chunk.vector) for chunk in chunks],
        },
    )
    postings = [
        (ordinal, lexeme, count, chunk.lexemes.total())
        for ordinal, chunk in enumerate(chunks)
        for lexeme, count in sorted(chunk.lexemes.items())
    ]
    database.execute(
        statement("insert_lexemes", **generation.tables),
        {
            "document": item.document_id,
            "ordinals": [posting[0] for posting in postings],
            "lexemes": [posting[1] for posting in postings],
            "occurrences": [posting[2] for posting in postings],
            "lengths": [posting[3] for posting in postings],
        },
    )
    database.execute(
        "UPDATE generations SET chunks = chunks + %s, lexemes = lexemes + %s WHERE id = %s",
        [len(chunks), sum(chunk.lexemes.total() for chunk in chunks), generation.id],
    )
    database.execute(
        "INSERT INTO indexed (document_id, generation_id, content_hash, chunks) VALUES (%s, %s, %s, %s)",
        [item.document_id, generation.id, item.content_hash, len(chunks)],
    )


def vector_text(vector: Sequence[float]) -> str:
    """pgvector's text form; nine digits keep a float32 as it is."""
    return "[" + ",".join(f"{value:.9g}" for value in vector) + "]"
