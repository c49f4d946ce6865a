"""The loaded models, which share two lanes: one for queries, one for bulk work.

The database says which generation serves, and so which embedding model. When another one is ready, its model is loaded
beside the first and proven; then the generation and the model are switched at once. A request computes with what it
began with, so that nothing is mixed, and the first model is freed when the last of them has ended.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg_pool import PoolTimeout

from app.errors import ApiError
from app.log import log
from pipeline import cgroup, footprint, heap
from pipeline.embedder import Embedder
from pipeline.errors import ModelError
from pipeline.lanes import Lanes
from pipeline.loading import Loader
from pipeline.reranker import Reranker
from store import generations, switching, wanted
from store.connection import Pool
from store.errors import StoreError
from store.generations import Generation
from text.analyser import Analyser

RETRY_SECONDS = 1.0
WATCH_SECONDS = 1.0  # between two looks at which generation serves
LAG_SECONDS = 0.1  # until a generation that lacked a document just now is tried again
AGAIN_SECONDS = 20.0  # until a model that could not be loaded beside the first is tried again
PROOF = "반품은 언제까지 할 수 있나요?"
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
    """Loads in the background, so that the port opens at once; `why` says what is still missing.

    `stopped` says why the embedding model that is wanted does not come to serve, None while it does or is on its way.
    """

    pool: Pool
    lanes: Lanes
    switches: bool = True  # False follows the database, and leaves switching to another process
    keep: int = 1  # generations that have served
    loaded: Loaded | None = None
    why: str = "The models are being loaded."
    stopped: str | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="watch-models")
        self._embedding = self._new_loader()
        self._next: tuple[int, Loader[Embedder]] | None = None  # of the generation that is to serve
        # What may stand in during development takes the place of proven releases, when the environment asks for it.
        self._reranking = Loader("reranker", self._reranker, checked=not os.environ.get("RERANK_FALLBACK"))
        self._mend_at = 0.0
        self._ending: list[weakref.ref[Embedder]] = []  # models that a request may still compute with

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more; `join` waits until what has begun is over."""
        self._stop.set()

    def join(self) -> None:
        # A thread that is at work while the interpreter ends takes the process down with it.
        if self._thread.is_alive():
            self._thread.join()

    def get(self) -> Loaded:
        """ApiError 503 while they are not loaded."""
        if self.loaded is None:
            raise ApiError(503, self.why, code="not_ready", retry_after=2)
        return self.loaded

    def _new_loader(self) -> Loader[Embedder]:
        return Loader("embedding", self._embedder, checked=not os.environ.get("EMBED_FALLBACK"))

    def _embedder(self, folder: Path) -> Embedder:
        # The first one has to be loaded, whatever it takes.
        if self.loaded and (why := footprint.lacks(folder, _folders(self.loaded))):
            raise ModelError(
                f"{folder.name} is not loaded beside the one that serves: {why} Raise stack_app_memory_mb."
            )
        return Embedder(folder, lanes=self.lanes)

    def _reranker(self, folder: Path) -> Reranker:
        return Reranker(folder, lanes=self.lanes)

    def _watch(self) -> None:
        """Until the app ends: load what the database says, switch to what is ready, and mend what was damaged."""
        with ThreadPoolExecutor(2, thread_name_prefix="load") as executor:
            # It needs no database.
            analyser = executor.submit(Analyser)
            while not self._stop.is_set():
                pause = WATCH_SECONDS
                try:
                    pause = self._look(executor, analyser)
                except (psycopg.Error, PoolTimeout):
                    # Its connections end with the app.
                    if not self._stop.is_set():
                        self._missing("The database does not answer.")
                except (StoreError, ModelError, OSError) as error:
                    self._missing(str(error))
                self._forget_ended()
                self._stop.wait(pause if self.loaded else RETRY_SECONDS)

    def _look(self, executor: ThreadPoolExecutor, analyser: Future[Analyser]) -> float:
        """One turn; seconds until the next."""
        loaded = self.loaded
        if loaded is None:
            # It needs no database either.
            reranker = executor.submit(self._choose_reranker)
            try:
                with self.pool.connection() as database:
                    serving = generations.serving(database)
                self._load(serving, reranker.result, analyser)
            finally:
                wait([reranker])
            return WATCH_SECONDS
        with self.pool.connection() as database:
            serving, coming = generations.serving(database), generations.upcoming(database)
        if (serving.id, serving.release) != (loaded.generation.id, loaded.generation.release):
            self._load(serving, self._choose_reranker, analyser)
        elif loaded.degraded and time.monotonic() > self._mend_at:
            self._load(loaded.generation, self._choose_reranker, analyser)
        self.stopped = coming.why if coming and coming.state in ("ready", "refused") else None
        if self._next and (coming is None or coming.id != self._next[0]):
            self._next = None
        if self.switches and coming and coming.state == "ready":
            return self._switch(coming)
        return WATCH_SECONDS

    def _choose_reranker(self) -> Reranker | None:
        return self._reranking.choose(wanted.reranker_candidates())

    def _load(
        self, generation: Generation, reranker: Callable[[], Reranker | None], analyser: Future[Analyser]
    ) -> None:
        """Set `loaded` to the best there is for a generation. ModelError when there is no embedder."""
        started = time.monotonic()
        self._mend_at = started + MEND_SECONDS
        before = self.loaded
        same = before is None or before.generation.id == generation.id
        loader = self._embedding if same else self._new_loader()
        embedder = loader.need(wanted.embedding_candidates(generation))
        now = Loaded(embedder, reranker(), analyser.result(), generation, loader.degraded, self._reranking.degraded)
        if now == before:
            return
        self._embedding = loader
        self._take(now)
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

    def _switch(self, coming: Generation) -> float:
        """Load the model of a generation that is ready, prove it, and let both serve; seconds until the next try."""
        loaded, started = self.get(), time.monotonic()
        try:
            embedder = self._prepare(coming)
        except ModelError as error:
            self.stopped = str(error)
            if self.stopped != coming.why:
                log("not_switched", "warning", generation=coming.id, why=str(error))
                with self.pool.connection() as database:
                    switching.stall(database, coming, str(error))
            self._next = None
            return AGAIN_SECONDS
        with self.pool.connection() as database:
            if not switching.activate(database, coming):
                return LAG_SECONDS
            serving = generations.serving(database)
        assert self._next
        self._embedding, self._next = self._next[1], None
        self._take(replace(loaded, embedder=embedder, generation=serving, embedder_degraded=self._embedding.degraded))
        self.stopped = None
        log(
            "switched",
            seconds=round(time.monotonic() - started, 2),
            before=loaded.generation.id,
            generation=serving.id,
            embedding=embedder.release_id,
        )
        # After `loaded` was set: what is dropped serves no new request.
        with self.pool.connection() as database:
            for dropped in switching.prune(database, self.keep):
                log("dropped_generation", generation=dropped)
        return WATCH_SECONDS

    def _prepare(self, coming: Generation) -> Embedder:
        """The proven model of a generation that is to serve. ModelError when it cannot be served as it is wanted."""
        if self._next is None:
            folder = next(wanted.embedding_candidates(coming))
            if why := footprint.lacks(folder, _folders(self.get())):
                raise ModelError(f"{coming.release} does not serve yet: {why} Raise stack_app_memory_mb.")
            loader = self._new_loader()
            embedder = loader.need(wanted.embedding_candidates(coming))
            if loader.degraded:
                raise ModelError(loader.degraded)
            vector = embedder.encode_array([PROOF], input_type="query")[0]
            if vector.shape != (coming.dimension,) or not np.any(vector):
                raise ModelError(f"{embedder.release_id} gives no vector of {coming.dimension} dimensions.")
            self._next = coming.id, loader
        model = self._next[1].model
        assert model is not None
        return model

    def _take(self, now: Loaded) -> None:
        before = self.loaded
        self.loaded = now
        if before and before.embedder is not now.embedder:
            self._ending.append(weakref.ref(before.embedder))

    def _forget_ended(self) -> None:
        """Give the memory of models back that no request computes with any more."""
        left = [model for model in self._ending if model() is not None]
        if len(left) < len(self._ending):
            heap.give_back()
            memory = cgroup.memory()
            log("model_freed", memory_mb=memory.used >> 20 if memory else None)
        self._ending = left

    def _missing(self, why: str) -> None:
        if self.why != why and self.loaded is None:
            log("not_ready", "warning", why=why)
        self.why = why


def _folders(loaded: Loaded) -> list[Path]:
    return [model.folder.folder for model in (loaded.embedder, loaded.reranker) if model and model.folder]


def describe(model: Embedder | Reranker) -> dict[str, Any]:
    """{name, release} and what its manifest says of how it was made and proven: {recipe, gate, speed, fusion}."""
    manifest = model.folder.manifest if model.folder else {}
    return {
        "name": manifest.get("profile", {}).get("name"),
        "release": model.release_id or None,
        **{key: manifest.get(key) for key in ("recipe", "gate", "speed", "fusion")},
    }
