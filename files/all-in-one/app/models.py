"""The loaded models, which share two lanes: one for queries, one for bulk work."""

import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from app.errors import ApiError
from app.log import log
from pipeline.embedder import Embedder
from pipeline.errors import ModelError
from pipeline.lanes import Lanes
from pipeline.loading import Loader
from pipeline.reranker import Reranker
from store import generations, wanted
from store.connection import Pool
from store.errors import StoreError
from store.generations import Generation
from text.analyser import Analyser

RETRY_SECONDS = 1.0
MEND_SECONDS = 10.0  # between two looks at whether a release that could not be served has been mended


@dataclass(frozen=True)
class Loaded:
    """Everything a request computes with. `generation` is the one whose vectors the embedder makes.

    Without a reranker `reranker_degraded` says why; both reasons are None while the wanted releases serve.
    """

    embedder: Embedder
    reranker: Reranker | None
    analyser: Analyser
    generation: Generation
    embedder_degraded: str | None
    reranker_degraded: str | None

    @property
    def degraded(self) -> list[str]:
        return [why for why in (self.embedder_degraded, self.reranker_degraded) if why]


@dataclass
class Models:
    """Loads in the background, so that the port opens at once; `why` says what is still missing."""

    pool: Pool
    lanes: Lanes
    loaded: Loaded | None = None
    why: str = "The models are being loaded."
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._load_until_whole, name="load-models", daemon=True)
        # What may stand in during development takes the place of proven releases, when the environment asks for it.
        self._embedding = Loader("embedding", self._embedder, checked=not os.environ.get("EMBED_FALLBACK"))
        self._reranking = Loader("reranker", self._reranker, checked=not os.environ.get("RERANK_FALLBACK"))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def get(self) -> Loaded:
        """ApiError 503 while they are not loaded."""
        if self.loaded is None:
            raise ApiError(503, self.why, code="not_ready", retry_after=2)
        return self.loaded

    def _embedder(self, folder: Path) -> Embedder:
        return Embedder(folder, lanes=self.lanes)

    def _reranker(self, folder: Path) -> Reranker:
        return Reranker(folder, lanes=self.lanes)

    def _load_until_whole(self) -> None:
        """Until the wanted releases serve: a damaged one is looked at again, and taken once it is mended."""
        with ThreadPoolExecutor(2, thread_name_prefix="load") as executor:
            # Neither needs the database.
            analyser = executor.submit(Analyser)
            while not self._stop.is_set():
                reranker = executor.submit(lambda: self._reranking.choose(wanted.reranker_candidates()))
                try:
                    self._load(analyser, reranker)
                except (psycopg.Error, PoolTimeout):
                    self._missing("The database does not answer.")
                except (StoreError, ModelError, OSError) as error:
                    self._missing(str(error))
                wait([reranker])
                if self.loaded and not self.loaded.degraded:
                    return
                self._stop.wait(MEND_SECONDS if self.loaded else RETRY_SECONDS)

    def _load(self, analyser: Future[Analyser], reranker: Future[Reranker | None]) -> None:
        """Set `loaded` to the best there is. Errors of the database and ModelError when there is no embedder."""
        started = time.monotonic()
        if self.loaded:
            generation = self.loaded.generation
        else:
            with self.pool.connection() as database:
                generation = generations.serving(database)
        before = self.loaded
        now = self.loaded = Loaded(
            self._embedding.need(wanted.embedding_candidates(generation)),
            reranker.result(),
            analyser.result(),
            generation,
            self._embedding.degraded,
            self._reranking.degraded,
        )
        if now == before:
            return
        log(
            "models_loaded",
            seconds=round(time.monotonic() - started, 2),
            generation=generation.id,
            embedding=now.embedder.release_id,
            reranker=now.reranker.release_id if now.reranker else None,
        )
        for why in now.degraded:
            if before is None or why not in before.degraded:
                log("degraded", "warning", why=why)

    def _missing(self, why: str) -> None:
        if self.why != why and self.loaded is None:
            log("not_ready", "warning", why=why)
        self.why = why


def describe(model: Embedder | Reranker) -> dict[str, Any]:
    """{name, release} and what its manifest says of how it was made and proven: {recipe, gate, speed, fusion}."""
    manifest = model.folder.manifest if model.folder else {}
    return {
        "name": manifest.get("profile", {}).get("name"),
        "release": model.release_id or None,
        **{key: manifest.get(key) for key in ("recipe", "gate", "speed", "fusion")},
    }
