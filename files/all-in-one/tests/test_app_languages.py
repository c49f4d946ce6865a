"""A question finds its answer in the other language too."""

from collections import Counter

import numpy as np
import pytest
from psycopg import sql
from test_store_search import direction, index

from app.languages import BALANCE, Languages, Vector, balance
from store import generations, search
from store.connection import Database
from store.filters import Filter
from store.generations import Generation, get
from store.results import IndexedChunk
from store.search import Candidate
from store.statements import statement
from store.vectors import vector_text

DIMENSION = 32
LATIN, HANGUL, ANSWER = 0, 1, 2  # axes: what all texts of a script share, and what the question is about


def vector(*parts: tuple[int, float]) -> Vector:
    found = np.zeros(DIMENSION, np.float32)
    for axis, share in parts:
        found[axis] = share
    return found


QUESTION = vector((LATIN, 0.9), (ANSWER, 0.6))


def put(database: Database, generation: Generation, document: str, text: str, of: Vector) -> None:
    index(database, generation, document, IndexedChunk(0, len(text), text, 3, of.tolist(), Counter(text.split())))


@pytest.fixture
def two_languages(database: Database, generation: Generation, monkeypatch: pytest.MonkeyPatch) -> Generation:
    """Ten texts in English and ten in Korean, of which one answers the question."""
    monkeypatch.setattr(search, "LEAST_CHUNKS", 5)
    for number in range(10):
        put(database, generation, f"en{number}", f"text number {number}", vector((LATIN, 1.0), (10 + number, 0.2)))
        put(database, generation, f"ko{number}", f"{number}번째 글입니다", vector((HANGUL, 1.0), (20 + number, 0.2)))
    put(database, generation, "ko-answer", "답이 되는 글", vector((HANGUL, 1.0), (ANSWER, 0.6)))
    return get(database, generation.id)


def test_the_nearest_of_each_script_are_found_however_far_one_of_them_is(
    database: Database, two_languages: Generation
) -> None:
    with database.transaction():
        found = search.nearest(database, two_languages, QUESTION.tolist(), 5)
    documents = [candidate.document_id for candidate in found.values()]
    assert all(document.startswith("en") for document in documents[:5])
    assert documents[5] == "ko-answer" and len(documents) == 10
    similarities = [candidate.similarity for candidate in found.values()]
    assert similarities == sorted(similarities, reverse=True)


@pytest.mark.parametrize("measured", [0, 5000])
def test_a_filter_leaves_the_nearest_of_each_script(
    database: Database, two_languages: Generation, monkeypatch: pytest.MonkeyPatch, measured: int
) -> None:
    monkeypatch.setattr(search, "MEASURED_DOCUMENTS", measured)
    ids = ["en1", "en2", "en3", "ko1", "ko2", "ko-answer"]
    database.execute("""UPDATE documents SET metadata = '{"kept": true}' WHERE id = ANY(%s)""", [ids])
    kept = (Filter("$ ? (@.kept == true)"),)
    with database.transaction():
        found = search.nearest(database, two_languages, QUESTION.tolist(), 2, kept)
    documents = [candidate.document_id for candidate in found.values()]
    assert len(documents) == 4 and set(documents) <= set(ids)
    assert [document[:2] for document in documents].count("ko") == 2 and "ko-answer" in documents


def test_a_search_reads_the_index_of_each_script(database: Database, two_languages: Generation) -> None:
    database.execute("SET seq_page_cost = 1000")
    # That of a version before, which made one of all chunks.
    database.execute(
        f"CREATE INDEX of_all ON generation_{two_languages.id}_chunks USING hnsw (embedding vector_ip_ops)"
    )
    used = []
    for script in (generations.LATIN, search.OTHERS):
        query = statement(
            "nearest_chunks", allowed=search.ALL, script=script, latin=generations.LATIN, **two_languages.tables
        )
        plan = database.execute(sql.SQL("EXPLAIN ") + query, {"vector": vector_text(QUESTION.tolist()), "limit": 5})
        lines = [row["QUERY PLAN"] for row in plan.fetchall()]
        used += [line.split("using ")[1].split()[0] for line in lines if "Index Scan using" in line]
    assert len(used) == len(set(used)) == 2 and "of_all" not in used


def test_an_answer_in_the_other_language_comes_before_its_own_languages_other_texts(
    database: Database, two_languages: Generation
) -> None:
    centroids = Languages().centroids(database, two_languages)
    with database.transaction():
        found = search.nearest(database, two_languages, QUESTION.tolist(), 100)
    documents = [candidate.document_id for candidate in found.values()]
    assert documents.index("ko-answer") == 10
    even = balance(found, QUESTION, centroids)
    best = sorted(even, key=lambda chunk: -even[chunk])
    assert [found[chunk].document_id for chunk in best].index("ko-answer") == 0
    english = [chunk for chunk in found if found[chunk].latin]
    assert [even[chunk] for chunk in english] == [found[chunk].similarity for chunk in english]


def test_the_further_script_is_raised_by_a_share_of_what_it_is_further() -> None:
    centroids = {True: vector((LATIN, 1.0)), False: vector((LATIN, 0.2))}
    found = {1: Candidate("a", latin=True, similarity=0.9), 2: Candidate("b", latin=False, similarity=0.5)}
    even = balance(found, vector((LATIN, 0.5)), centroids)
    assert even == pytest.approx({1: 0.9, 2: 0.5 + BALANCE * (0.5 - 0.1)})


def test_one_language_alone_is_left_as_it_is(
    database: Database, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LEAST_CHUNKS", 2)
    for number in range(3):
        put(database, generation, f"en{number}", f"text number {number}", vector((LATIN, 1.0), (10 + number, 0.2)))
    put(database, generation, "ko", "하나뿐인 글", vector((HANGUL, 1.0)))
    centroids = Languages().centroids(database, get(database, generation.id))
    assert centroids == {}
    assert balance({1: Candidate("a", latin=True, similarity=0.9)}, QUESTION, centroids) == {1: 0.9}


def test_a_script_is_told_by_most_of_the_characters(database: Database, generation: Generation) -> None:
    texts = {
        "en": "Press 전원 for three seconds",
        "ko": "E-204 오류가 나오면 전원을 누르세요",
        "fr": "Où est l’été, à Évian?",
        "ru": "Где мой заказ?",
    }
    for document, text in texts.items():
        put(database, generation, document, text, vector((LATIN, 1.0)))
    with database.transaction():
        found = search.nearest(database, generation, direction(LATIN), 10)
    assert {candidate.document_id for candidate in found.values() if candidate.latin} == {"en", "fr"}


def test_centroids_are_measured_again_once_the_index_has_grown(
    database: Database, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LEAST_CHUNKS", 1)
    languages = Languages()
    assert languages.centroids(database, get(database, generation.id)) == {}
    put(database, generation, "en", "a text", vector((LATIN, 1.0)))
    put(database, generation, "ko", "글입니다", vector((HANGUL, 1.0)))
    found = languages.centroids(database, get(database, generation.id))
    assert found[True].tolist() == direction(LATIN) and found[False].tolist() == direction(HANGUL)
