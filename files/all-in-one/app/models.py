"""The loaded models, and how requests get at them: through a bounded number of places, in threads."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from app.errors import ApiError
from app.log import log
from pipeline import golden
from pipeline.embedder import Embedder
from pipeline.errors import ModelError
from pipeline.reranker import Reranker
from store import generations, wanted
from store.connection import Pool
from store.errors import StoreError
from store.generations import Generation
from text.analyser import Analyser

RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Loaded:
    """Everything a request computes with. `generation` is the one whose release the embedder is."""

    embedder: Embedder
    reranker: Reranker
    analyser: Analyser
    generation: Generation


@dataclass
class Models:
    """Loads in the background, so that the port opens at once; `why` says what is still missing."""

    pool: Pool
    places: int
    loaded: Loaded | None = None
    why: str = "The models are being loaded."
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._free = threading.BoundedSemaphore(self.places)
        self._thread = threading.Thread(target=self._load_until_done, name="load-models", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def get(self) -> Loaded:
        """ApiError 503 while they are not loaded."""
        if self.loaded is None:
            raise ApiError(503, self.why, code="not_ready", retry_after=2)
        return self.loaded

    @contextmanager
    def place(self) -> Iterator[Loaded]:
        """The models for one request's inference. ApiError 429 when too many wait already."""
        loaded = self.get()
        if not self._free.acquire(blocking=False):
            raise ApiError(
                429,
                f"{self.places} requests are waiting for the models already; try again.",
                code="overloaded",
                retry_after=1,
            )
        try:
            yield loaded
        finally:
            self._free.release()

    def _load_until_done(self) -> None:
        started = time.monotonic()
        with ThreadPoolExecutor(2, thread_name_prefix="load") as executor:
            # Neither needs the database.
            analyser = executor.submit(Analyser)
            reranker = executor.submit(_load_reranker)
            while not self._stop.is_set():
                try:
                    generation = self._active()
                    embedder = _load_embedder(generation)
                    self.loaded = Loaded(embedder, reranker.result(), analyser.result(), generation)
                    log("models_loaded", seconds=round(time.monotonic() - started, 2), generation=generation.id)
                    return
                except (psycopg.Error, PoolTimeout):
                    self._missing("The database does not answer.")
                except (StoreError, ModelError) as error:
                    self._missing(str(error))
                    if reranker.done() and reranker.exception():
                        reranker = executor.submit(_load_reranker)
                self._stop.wait(RETRY_SECONDS)

    def _missing(self, why: str) -> None:
        if self.why != why:
            log("not_ready", "warning", why=why)
        self.why = why

    def _active(self) -> Generation:
        with self.pool.connection() as database:
            try:
                generation = generations.active(database)
            except psycopg.errors.UndefinedTable:
                generation = None
        if generation is None:
            raise StoreError("There is no active generation; run `python -m store migrate` first.")
        return generation


def _load_embedder(generation: Generation) -> Embedder:
    embedder = Embedder(wanted.embedding_release(generation.release))
    _prove(embedder)
    return embedder


def _load_reranker() -> Reranker:
    reranker = Reranker(wanted.reranker_folder())
    _prove(reranker)
    return reranker


def _prove(model: Embedder | Reranker) -> None:
    """On another CPU or onnxruntime than the release was proven with, it must pass its golden results first."""
    if model.folder and model.folder.manifest and not golden.proven_here(model.folder.manifest):
        worst = golden.check(model)
        log("golden_results_passed", release=model.release_id, worst=round(worst, 5))


def describe(model: Embedder | Reranker) -> dict[str, Any]:
    """{name, release, recipe, gate} for /health."""
    manifest = model.folder.manifest if model.folder else {}
    return {
        "name": manifest.get("profile", {}).get("name"),
        "release": model.release_id or None,
        "recipe": manifest.get("recipe"),
        "gate": manifest.get("gate"),
    }
