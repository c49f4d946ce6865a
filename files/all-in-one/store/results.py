"""What a worker computed for an item, written at once: chunks, vectors, lexemes, statistics and the item's state."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from store import generations, jobs
from store.connection import Database
from store.documents import remove_chunks
from store.generations import Generation
from store.jobs import Item
from store.statements import statement
from store.vectors import vector_text


@dataclass(frozen=True)
class IndexedChunk:
    """`start` and `end` are character offsets into the document's text, `vector` has the generation's dimension.

    `lexemes` are those of what was embedded: the chunk's text, under the document's title where there was room for it;
    `passage_hash` tells which text that was. `places` says where in `content` they stand: (start, end) in characters.
    """

    start: int
    end: int
    content: str
    tokens: int
    vector: Sequence[float]
    lexemes: Counter[str]
    places: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    passage_hash: bytes | None = None


def complete(
    database: Database, item: Item, worker: str, generation: Generation, chunks: Sequence[IndexedChunk]
) -> bool:
    """Replace what the generation holds of the document. False, and nothing written, if the item is not this worker's.

    A worker that lost its lease, or whose document changed meanwhile, so leaves no trace. `generation` is as it was
    when the chunks were cut: when it wants them cut in another way by now, the item is given back.
    """
    with database.transaction():
        document = database.execute(
            "SELECT content_hash FROM documents WHERE id = %s FOR UPDATE", [item.document_id]
        ).fetchone()
        if document is None or document["content_hash"] != item.content_hash:
            return False
        now = generations.lock(database, generation)
        if now is None:
            return False
        if now.cut != generation.cut:
            jobs.release(database, item.id, worker)
            return False
        finished = database.execute(
            "UPDATE items SET state = 'done', reason = NULL, worker = NULL, lease_until = NULL, finished_at = now()"
            " WHERE id = %s AND worker = %s AND state = 'running'",
            [item.id, worker],
        )
        if finished.rowcount != 1:
            return False
        # An earlier try at the same content may have been given up.
        database.execute(
            "UPDATE items SET state = 'superseded', reason = 'a later try succeeded', finished_at = now()"
            " WHERE document_id = %s AND generation_id = %s AND state = 'parked'",
            [item.document_id, generation.id],
        )
        remove_chunks(database, generation, item.document_id)
        _insert(database, generation, item, chunks)
        return True


def known_vectors(database: Database, generation: Generation, hashes: Collection[bytes]) -> dict[bytes, list[float]]:
    """{passage hash: vector} of those passages that the generation holds already, in whichever document."""
    rows = database.execute(statement("known_vectors", **generation.tables), {"hashes": list(hashes)}).fetchall()
    return {bytes(row["passage_hash"]): json.loads(row["vector"]) for row in rows}


def _insert(database: Database, generation: Generation, item: Item, chunks: Sequence[IndexedChunk]) -> None:
    database.execute(
        statement("insert_chunks", **generation.tables),
        {
            "document": item.document_id,
            "starts": [chunk.start for chunk in chunks],
            "ends": [chunk.end for chunk in chunks],
            "contents": [chunk.content for chunk in chunks],
            "tokens": [chunk.tokens for chunk in chunks],
            "hashes": [chunk.passage_hash for chunk in chunks],
            "vectors": [vector_text(chunk.vector) for chunk in chunks],
        },
    )
    postings = [
        (ordinal, lexeme, count, chunk.lexemes.total(), places_text(chunk.places.get(lexeme, ())))
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
            "places": [posting[4] for posting in postings],
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


def places_text(places: Sequence[tuple[int, int]]) -> str:
    """Postgres' text form of a multirange."""
    return "{" + ",".join(f"[{start},{end})" for start, end in places) + "}"
