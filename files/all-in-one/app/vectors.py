"""Vectors for requests: from the cache, from the request that computes the same text just now, or computed."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from app.cache import Cached, VectorCache
from pipeline.embedder import Embedder, EncodedTexts, LongTexts
from pipeline.lanes import LaneName


class Vectors:
    """Shared by all requests of the process."""

    def __init__(self, cache: VectorCache) -> None:
        self._cache = cache
        self._guard = threading.Lock()
        self._flights: dict[str, Future[Cached]] = {}

    def encode(
        self,
        embedder: Embedder,
        texts: Sequence[str],
        *,
        input_type: str | None = None,
        long_texts: LongTexts = "cut",
        lane: LaneName | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> EncodedTexts:
        """As `Embedder.encode_with_info`; a text is computed once however often, and by however many, it is asked for.

        Only requests of the query lane share what is being computed: none of them waits for bulk work.
        """

        if not embedder.release_id:  # what stands in during development has no name to keep vectors under
            return embedder.encode_with_info(texts, input_type=input_type)
        role = f"{input_type or 'default'}:{long_texts}"
        keys = [self._cache.key(embedder.release_id, role, text) for text in texts]
        text_of = dict(zip(keys, texts, strict=True))
        found = self._cache.get_many(list(text_of), embedder.dim)
        missing = [key for key in text_of if key not in found]
        chosen_lane = lane or embedder.lane_for([text_of[key] for key in missing])

        def compute(keys: Sequence[str]) -> dict[str, Cached]:
            encoded = embedder.encode_with_info(
                [text_of[key] for key in keys],
                input_type=input_type,
                long_texts=long_texts,
                lane=chosen_lane,
                gone=gone,
            )
            computed = dict(zip(keys, _split(encoded), strict=True))
            self._cache.put_many(computed)
            return computed

        if missing:
            found |= self._fly_together(missing, compute) if chosen_lane == "query" else compute(missing)
        return _join([found[key] for key in keys], embedder.dim)

    def _fly_together(
        self, keys: list[str], compute: Callable[[Sequence[str]], dict[str, Cached]]
    ) -> dict[str, Cached]:
        """Compute what nobody else computes now, then take the others' results, or compute those where they failed."""
        with self._guard:
            theirs = {key: self._flights[key] for key in keys if key in self._flights}
            mine = {key: Future[Cached]() for key in keys if key not in theirs}
            self._flights |= mine
        found: dict[str, Cached] = {}
        try:
            if mine:
                found = compute(list(mine))
        finally:
            with self._guard:
                for key, flight in mine.items():
                    del self._flights[key]
                    # Who waits for a flight that failed, or whose client hung up, computes for itself.
                    flight.set_result(found[key]) if key in found else flight.cancel()
        failed = []
        for key, flight in theirs.items():
            try:
                found[key] = flight.result()
            except BaseException:
                failed.append(key)
        if failed:
            found |= compute(failed)
        return found


def _split(encoded: EncodedTexts) -> list[Cached]:
    return [
        Cached(vector, tokens, truncated)
        for vector, tokens, truncated in zip(encoded.vectors, encoded.tokens, encoded.truncated, strict=True)
    ]


def _join(entries: list[Cached], dimension: int) -> EncodedTexts:
    vectors = np.array([entry.vector for entry in entries], dtype=np.float32).reshape(len(entries), dimension)
    return EncodedTexts(vectors, [entry.tokens for entry in entries], [entry.truncated for entry in entries])
