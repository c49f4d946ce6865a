"""A text's vector is computed once: cached in Valkey, shared by requests that ask at once, and right without either."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_graphs import write_model
from valkey_server import Valkey

from app.cache import VectorCache
from app.vectors import Vectors
from pipeline.embedder import Embedder, EncodedTexts
from pipeline.errors import AbandonedError


class Counting(Embedder):
    """A real model that notes what it is asked to compute, and can be held at it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, threads=2)
        self.computed: list[list[str]] = []
        self.hold: threading.Event | None = None
        self.begun = threading.Event()

    def encode_with_info(self, texts: Sequence[str], **options: Any) -> EncodedTexts:
        self.computed.append(list(texts))
        self.begun.set()
        if self.hold:
            assert self.hold.wait(30)
        return super().encode_with_info(texts, **options)


@pytest.fixture
def embedder(tmp_path: Path) -> Counting:
    return Counting(write_model(tmp_path / "m", manifest={"id": "tiny-cached"}))


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    server.start()
    yield server
    server.kill()


def test_a_text_is_computed_once_and_its_order_kept(embedder: Counting, valkey: Valkey) -> None:
    vectors = Vectors(VectorCache(valkey.url))
    texts = ["b", "a", "b", "x" * 100]
    first = vectors.encode(embedder, texts)
    assert embedder.computed == [["b", "a", "x" * 100]]
    again = vectors.encode(embedder, texts[::-1])
    assert len(embedder.computed) == 1
    assert (again.vectors == first.vectors[::-1]).all()
    assert again.tokens == first.tokens[::-1] and again.truncated == [True, False, False, False]
    assert (first.vectors[:3] == embedder.encode_array(["b", "a", "b"])).all()


def test_roles_and_ways_with_long_texts_are_kept_apart(embedder: Counting, valkey: Valkey) -> None:
    vectors = Vectors(VectorCache(valkey.url))
    for options in ({"input_type": "query"}, {"input_type": "passage"}, {"long_texts": "windows"}):
        vectors.encode(embedder, ["y" * 100], **options)  # type: ignore[arg-type]
    assert len(embedder.computed) == 3


def test_a_cache_that_vanishes_costs_nothing_but_time(embedder: Counting, valkey: Valkey) -> None:
    cache = VectorCache(valkey.url)
    vectors = Vectors(cache)
    before = vectors.encode(embedder, ["a", "b"])
    valkey.kill()
    after = vectors.encode(embedder, ["a", "b"])
    assert (before.vectors == after.vectors).all()
    assert cache.degraded and "Redis does not answer" in cache.degraded


def test_requests_that_ask_for_the_same_at_once_share_one_computation(embedder: Counting) -> None:
    vectors = Vectors(VectorCache(""))
    embedder.hold = threading.Event()
    with ThreadPoolExecutor(6) as executor:
        leader = executor.submit(vectors.encode, embedder, ["same"])
        assert embedder.begun.wait(10)
        followers = [executor.submit(vectors.encode, embedder, ["same"]) for _ in range(5)]
        embedder.hold.set()
        results = [future.result(30).vectors for future in [leader, *followers]]
    assert all((result == results[0]).all() for result in results)
    assert len(embedder.computed) < 6


def test_who_waited_for_a_client_that_hung_up_computes_for_itself(embedder: Counting) -> None:
    vectors = Vectors(VectorCache(""))
    embedder.hold = threading.Event()
    gone = threading.Event()
    with ThreadPoolExecutor(2) as executor:
        leader = executor.submit(vectors.encode, embedder, ["same"], gone=gone.is_set)
        assert embedder.begun.wait(10)
        follower = executor.submit(vectors.encode, embedder, ["same"])
        gone.set()
        embedder.hold.set()
        with pytest.raises(AbandonedError):
            leader.result(30)
        assert np.isfinite(follower.result(30).vectors).all()


def test_a_query_does_not_wait_for_bulk_work_on_the_same_text(embedder: Counting) -> None:
    vectors = Vectors(VectorCache(""))
    embedder.hold = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        bulk = executor.submit(vectors.encode, embedder, ["same", *(f"{number}" * 200 for number in range(50))])
        assert embedder.begun.wait(10)
        hold, embedder.hold = embedder.hold, None
        assert vectors.encode(embedder, ["same"]).vectors.shape == (1, embedder.dim)
        assert not bulk.done()
        hold.set()
        bulk.result(30)
