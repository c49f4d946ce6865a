"""Vectors of several languages in one index: evens out that a question is nearer to all texts of its own language.

What a script alone brings is measured by the mean vector of the texts written in it, its centroid. Korean and English
differ in their script, and so do many other pairs; texts of one script are compared as they are.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from store import search as stored
from store.connection import Database
from store.generations import Generation
from store.search import Candidate

# Share of a script's advantage that is taken off. nDCG@10 of the tuning queries (demo/corpus/queries.jsonl), words
# included: 0.695 at 0, 0.729 at 0.5, 0.750 at 0.75, 0.746 at 0.8, 0.745 at 0.9.
BALANCE = 0.75
KEPT = 600.0  # seconds that centroids are believed, while the index grows by no more than
GROWTH = 0.1

Vector = np.ndarray[Any, np.dtype[np.float32]]
Centroids = dict[bool, Vector]  # by whether the script is Latin


@dataclass(frozen=True)
class _Measured:
    at: float
    chunks: int
    centroids: Centroids


class Languages:
    """Centroids of the generations that are searched, measured again from time to time."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._measured: dict[int, _Measured] = {}

    def centroids(self, database: Database, generation: Generation) -> Centroids:
        """{Latin or not: [dim] float32}; empty where only one of the two is there to speak of."""
        with self._guard:
            known = self._measured.get(generation.id)
        if known is None or _is_old(known, generation.chunks):
            means = {
                latin: np.array(mean, np.float32) for latin, mean in stored.centroids(database, generation).items()
            }
            known = _Measured(time.monotonic(), generation.chunks, means if len(means) > 1 else {})
            with self._guard:
                self._measured[generation.id] = known
        return known.centroids


def _is_old(known: _Measured, chunks: int) -> bool:
    grown = abs(chunks - known.chunks) > GROWTH * known.chunks
    return grown or time.monotonic() - known.at > KEPT


def balance(candidates: Mapping[int, Candidate], vector: Vector | None, centroids: Centroids) -> dict[int, float]:
    """Similarities by chunk; those of the script further from the question are raised by BALANCE of the difference."""
    if vector is None or not centroids:
        return {chunk: found.similarity for chunk, found in candidates.items()}
    nearness = {script: float(vector @ centroid) for script, centroid in centroids.items()}
    most = max(nearness.values())
    return {chunk: found.similarity + BALANCE * (most - nearness[found.latin]) for chunk, found in candidates.items()}
