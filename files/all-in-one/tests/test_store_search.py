"""What is written of a document, and what a search finds of it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from store import documents, jobs, results, search
from store.connection import Database
from store.documents import Document
from store.generations import Generation, get
from store.results import IndexedChunk


def direction(axis: int, dimension: int = 32) -> list[float]:
    return [1.0 if position == axis else 0.0 for position in range(dimension)]


def chunk(axis: int, words: str) -> IndexedChunk:
    return IndexedChunk(0, len(words), words, len(words.split()), direction(axis), Counter(words.split()))


def index(database: Database, generation: Generation, document: str, *chunks: IndexedChunk) -> None:
    documents.submit(
        database, [Document(document, " ".join(chunk.content for chunk in chunks), title=document.upper())]
    )
    item = jobs.claim(database, "w", lease_seconds=60, max_attempts=3)
    assert item and item.document_id == document
    assert results.complete(database, item, "w", generation, chunks)


def bm25(database: Database, generation: Generation, *lexemes: str) -> list[str]:
    """Documents in the order of their best chunk."""
    generation = get(database, generation.id)
    found = search.frequencies(database, generation, lexemes)
    weights = {lexeme: search.inverse_frequency(generation, chunks) for lexeme, chunks in found.items()}
    candidates, _ = search.matching(database, generation, weights, 10)
    return [candidate.document_id for candidate in candidates.values()]


def test_the_nearest_vector_comes_first(database: Database, generation: Generation) -> None:
    index(database, generation, "a", chunk(0, "alpha"))
    index(database, generation, "b", chunk(1, "beta"))
    with database.transaction():
        found = search.nearest(database, generation, direction(1), 10)
    passages = search.passages(database, generation, list(found))
    assert [passages[chunk]["document_id"] for chunk in found] == ["b", "a"]
    assert [candidate.similarity for candidate in found.values()] == pytest.approx([1.0, 0.0])


def test_more_candidates_than_the_index_looks_at_by_default(database: Database, generation: Generation) -> None:
    for number in range(60):
        index(database, generation, f"d{number}", chunk(number % 32, "word"))
    with database.transaction():
        assert len(search.nearest(database, generation, direction(0), 60)) == 60


def test_what_has_a_word_comes_with_its_vector(database: Database, generation: Generation) -> None:
    slanted = [0.6, -0.8] + 30 * [0.0]
    for document, vector in (("a", direction(1)), ("b", slanted), ("c", direction(2))):
        index(database, generation, document, replace(chunk(0, f"word {document}"), vector=vector))
    found, vectors = search.matching(database, get(database, generation.id), {"word": 1.0, "b": 1.0}, 2)
    assert [candidate.document_id for candidate in found.values()] == ["b", "a"]
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, np.array([slanted, direction(1)], np.float32))


def test_a_rare_word_weighs_more_than_a_common_one(database: Database, generation: Generation) -> None:
    index(database, generation, "common", chunk(0, "return return shoes"))
    index(database, generation, "rare", chunk(1, "return e204 shoes"))
    index(database, generation, "other", chunk(2, "return hats gloves"))
    assert bm25(database, generation, "return", "e204")[0] == "rare"


def test_a_word_weighs_more_in_a_short_text(database: Database, generation: Generation) -> None:
    index(database, generation, "long", chunk(0, "refund " + " ".join(f"w{n}" for n in range(50))))
    index(database, generation, "short", chunk(1, "refund now"))
    assert bm25(database, generation, "refund") == ["short", "long"]


def test_an_unknown_word_has_no_frequency(database: Database, generation: Generation) -> None:
    index(database, generation, "a", chunk(0, "alpha"))
    assert search.frequencies(database, generation, ["omega", "alpha"]) == {"alpha": 1}


def test_a_new_version_replaces_every_trace_of_the_old(database: Database, generation: Generation) -> None:
    index(database, generation, "a", chunk(0, "old words"), chunk(1, "old more"))
    index(database, generation, "a", chunk(2, "new words"))
    assert search.frequencies(database, generation, ["old", "more", "new", "words"]) == {"new": 1, "words": 1}
    now = get(database, generation.id)
    assert (now.chunks, now.lexemes) == (1, 2)


def test_deleting_a_document_takes_its_statistics_along(database: Database, generation: Generation) -> None:
    index(database, generation, "a", chunk(0, "shared only"))
    index(database, generation, "b", chunk(1, "shared"))
    documents.delete(database, "a")
    assert search.frequencies(database, generation, ["shared", "only"]) == {"shared": 1}
    now = get(database, generation.id)
    assert (now.chunks, now.lexemes) == (1, 1)
    for table in ("chunks", "lexemes"):
        assert database.execute(f"SELECT FROM generation_{generation.id}_{table}").rowcount == 1


def test_a_worker_that_lost_its_item_leaves_no_trace(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text")])
    item = jobs.claim(database, "slow", lease_seconds=60, max_attempts=3)
    assert item
    database.execute("UPDATE items SET lease_until = now() - interval '1 s'")
    assert jobs.claim(database, "next", lease_seconds=60, max_attempts=3)
    assert not results.complete(database, item, "slow", generation, [chunk(0, "text")])
    assert get(database, generation.id).chunks == 0
    assert results.complete(database, item, "next", generation, [chunk(0, "text")])


def test_results_of_replaced_content_are_refused(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "old")])
    item = jobs.claim(database, "w", lease_seconds=60, max_attempts=3)
    assert item
    documents.submit(database, [Document("a", "new")])
    assert not results.complete(database, item, "w", generation, [chunk(0, "old")])


def test_a_zero_vector_is_refused(database: Database, generation: Generation) -> None:
    documents.submit(database, [Document("a", "text")])
    item = jobs.claim(database, "w", lease_seconds=60, max_attempts=3)
    assert item
    empty = IndexedChunk(0, 1, "t", 1, [0.0] * 32, Counter())
    with pytest.raises(Exception, match="check constraint"):
        results.complete(database, item, "w", generation, [empty])


def test_the_document_tells_that_it_is_indexed(database: Database, generation: Generation) -> None:
    index(database, generation, "a", chunk(0, "alpha"), chunk(1, "beta"))
    found = documents.get(database, "a")
    assert found is not None and (found["state"], found["chunks"]) == ("indexed", 2)


def highlights(database: Database, generation: Generation, *lexemes: str) -> list[tuple[int, int]] | None:
    (chunk,) = database.execute(f"SELECT id FROM generation_{generation.id}_chunks").fetchall()
    found: list[tuple[int, int]] | None = search.passages(database, generation, [chunk["id"]], lexemes)[chunk["id"]][
        "highlights"
    ]
    return found


def test_a_passage_tells_where_the_lexemes_asked_for_stand(database: Database, generation: Generation) -> None:
    text = "비밀번호 변경, 비밀"
    places = {"비밀번호": [(0, 4)], "비밀": [(0, 2), (9, 11)], "번호": [(2, 4)], "변경": [(5, 7)]}
    lexemes = Counter({lexeme: len(found) for lexeme, found in places.items()})
    index(database, generation, "a", IndexedChunk(0, len(text), text, 4, direction(0), lexemes, places))
    assert highlights(database, generation, "변경", "비밀") == [(0, 2), (5, 7), (9, 11)]
    assert highlights(database, generation, "번호", "비밀번호") == [(0, 4)]
    assert highlights(database, generation, "번호", "비밀") == [(0, 4), (9, 11)]
    assert highlights(database, generation, "환불") == []
    assert highlights(database, generation) == []


def test_what_was_stored_before_places_were_does_not_tell_them(database: Database, generation: Generation) -> None:
    index(database, generation, "a", chunk(0, "alpha"))
    database.execute(f"UPDATE generation_{generation.id}_lexemes SET places = NULL")
    assert highlights(database, generation, "alpha") is None
    assert highlights(database, generation, "omega") == []


def test_a_chunk_without_words_is_found_by_its_vector(database: Database, generation: Generation) -> None:
    index(database, generation, "a", IndexedChunk(0, 1, "!", 1, direction(0), Counter()))
    with database.transaction():
        assert len(search.nearest(database, generation, direction(0), 5)) == 1
