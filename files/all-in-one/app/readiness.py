"""Is the box able to answer now? Found out by a real embedding and a real rerank, at most every few seconds."""

import threading
import time

import numpy as np
import psycopg
from psycopg_pool import PoolTimeout

from app.models import Loaded, Models
from app.probe import ANSWER, QUESTION
from pipeline.errors import ModelError, OverloadedError
from store import generations
from store.connection import Pool
from store.errors import BusyError, StoreError

KEEP = 5.0  # seconds that a good answer holds


class Readiness:
    """`why_not()` is None while the box answers."""

    def __init__(self, pool: Pool, models: Models) -> None:
        self._pool = pool
        self._models = models
        self._guard = threading.Lock()
        self._good_until = 0.0
        self._ended = 0.0
        self._problem: str | None = None

    def why_not(self) -> str | None:
        """A sentence, or None. One check at a time; who comes meanwhile gets its result."""
        asked = time.monotonic()
        loaded = self._models.loaded
        if loaded is None:
            return self._models.why
        with self._guard:
            if time.monotonic() < self._good_until:
                return None
            # Without a database a check takes seconds: those who ask then must not wait for one after the other.
            if self._ended < asked:
                self._problem = self._check(loaded)
                self._ended = time.monotonic()
                if self._problem is None:
                    self._good_until = self._ended + KEEP
            return self._problem

    def _check(self, loaded: Loaded) -> str | None:
        try:
            with self._pool.connection() as database:
                active = generations.active(database)
            if active is None:
                return "There is no active generation; run `python -m store migrate` first."
            vector = loaded.embedder.encode_array([QUESTION], input_type="query")[0]
            score = loaded.reranker.score(QUESTION, [ANSWER])[0] if loaded.reranker else 0.0
        except (OverloadedError, BusyError):
            return None  # busy answering: that is what it is ready for
        except (psycopg.Error, PoolTimeout):
            return "The database does not answer."
        except (StoreError, ModelError) as error:
            return str(error)
        if not np.isfinite(vector).all() or not np.any(vector) or score is None:
            return "The models give no usable result."
        return None
