"""Claim, compute, store, again. Whatever kills this process, the item is finished by whoever comes next, once.

Every generation has its own model here, loaded when there is something to compute with it, and freed with the
generation. One that cannot be loaded holds up its own generation only, unless that is the one that serves.
"""

import os
import secrets
import socket
import threading
import time
from functools import partial
from pathlib import Path

import psycopg

from app.log import log, log_exception
from pipeline import footprint, heap
from pipeline.embedder import Embedder
from pipeline.errors import ModelError
from pipeline.loading import Loader
from store import generations, jobs, results, switching, wanted
from store.connection import Database, connect
from store.errors import StoreError
from store.generations import Generation
from store.jobs import Item
from text import analyser, chunker
from text.analyser import Analyser
from worker import gate, heartbeat, labelled
from worker.indexing import Indexer, Interrupted
from worker.lease import LeaseKeeper
from worker.metrics import Metrics
from worker.settings import Settings

RECONNECT = 1.0  # seconds
PROOF = 30.0  # seconds without a document after which an inference shows that the model still works
LOOK = 1.0  # seconds between two looks at which generations there are
SET_ASIDE = 30.0  # seconds until a generation whose model could not be loaded is tried again
LONGEST_REASON = 500


class Worker:
    """One worker. `stop` makes it give back what it holds and return."""

    def __init__(self, database: str, settings: Settings) -> None:
        self._where = database
        self._settings = settings
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.stop = threading.Event()
        self.metrics = Metrics()
        self._analyser = Analyser()
        self._loaders: dict[int, Loader[Embedder]] = {}
        self._indexers: dict[int, Indexer] = {}
        self._aside: dict[int, float] = {}  # generations, each until when (time.monotonic())
        self._serving = 0  # the generation, when it was looked at last
        self._looked_at = 0.0
        self._proven_at = 0.0

    def run(self) -> None:
        """Until `stop` is set. A database that is away, or not migrated yet, is waited for."""
        waiting_for = ""
        while not self.stop.is_set():
            try:
                with connect(self._where) as database:
                    self._prepare(database)
                    self._give_back(database)
                    waiting_for = ""
                    while not self.stop.is_set():
                        self._turn(database)
            except psycopg.errors.DiskFull:
                why = "The database has no room left on its disk."
            except psycopg.OperationalError:
                why = "The database does not answer."
            except (StoreError, ModelError) as error:
                why = str(error)
            else:
                return
            if why != waiting_for:
                log("waiting", "warning", why=why)
                waiting_for = why
            self.stop.wait(RECONNECT)

    def _prepare(self, database: Database) -> None:
        """Load the active generation's model before the first document, and prove that it works."""
        serving = generations.serving(database)
        _must_cut_alike(serving)
        self._prove(self._indexer_for(serving))

    def _turn(self, database: Database) -> None:
        """One item, or a short sleep; now and then a look at the generations."""
        item = jobs.claim(
            database,
            self.name,
            lease_seconds=self._settings.lease,
            max_attempts=self._settings.max_attempts,
            without=[one for one, until in self._aside.items() if one != self._serving and time.monotonic() < until],
        )
        if item:
            self._process(database, item)
        # Where nothing waits is where a generation is complete.
        if not item or time.monotonic() - self._looked_at > LOOK:
            self._look(database)
            self._looked_at = time.monotonic()
        if not item:
            self.stop.wait(self._settings.poll)
        heartbeat.beat(self._settings.heartbeat)

    def _look(self, database: Database) -> None:
        """Forget what is gone, judge what is complete, and show that the serving generation's model still works."""
        every = generations.every(database)
        serving = next((one for one in every if one.state == "active"), None)
        if serving is None:
            raise StoreError("There is no active generation; run `python -m store migrate` first.")
        _must_cut_alike(serving)
        self._serving = serving.id
        self.metrics.model = self._indexer_for(serving).embedder
        self._forget(set(self._indexers) - {one.id for one in every})
        coming = next((one for one in every if one.state in ("building", "ready")), None)
        if coming and time.monotonic() > self._aside.get(coming.id, 0.0):
            try:
                self._judge(database, serving, coming)
            except ModelError as error:
                self._set_aside(database, coming, str(error))
            except psycopg.errors.UndefinedTable:
                if generations.find(database, coming.id) is not None:
                    raise
                log("dropped", generation=coming.id)
        if serving.wanted_release and time.monotonic() > self._aside.get(serving.id, 0.0):
            self._compare(database, serving, serving.wanted_release)
        if time.monotonic() - self._proven_at > PROOF:
            self._prove(self._indexer_for(serving))

    def _judge(self, database: Database, serving: Generation, coming: Generation) -> None:
        """Let the app serve a generation that is complete and good; record why if it is not."""
        if switching.is_open(database, coming):
            return
        if coming.state == "ready" and not switching.first_given_up(database, coming):
            return
        verdict = gate.judge(database, serving, coming, self._goes_on)
        if verdict and not verdict.why:
            verdict = self._ask_both(serving, coming, verdict)
        if verdict is None:
            return
        if verdict.why:
            if switching.refuse(database, coming, verdict.why, verdict.figures, state=coming.state):
                log("refused", "warning", generation=coming.id, why=verdict.why)
        elif switching.accept(database, coming, verdict.figures):
            log("ready", generation=coming.id, **verdict.figures)

    def _ask_both(self, serving: Generation, coming: Generation, verdict: gate.Verdict) -> gate.Verdict | None:
        """The verdict with what the operator's labelled queries say, if there are any; None when told to stop."""
        try:
            labels = labelled.read(labelled.file_of())
            if not labels:
                return verdict
            sides = [(one, self._indexer_for(one).embedder) for one in (serving, coming)]
        except labelled.LabelsError as error:
            return gate.Verdict(f"{coming.release} could not be judged: {error}", verdict.figures)
        compared = labelled.compare(self._where, labels, sides, self._analyser, self._goes_on)
        return gate.with_labels(verdict, coming, compared) if compared else None

    def _compare(self, database: Database, serving: Generation, release: str) -> None:
        """Let another release of the same space take over, or build a generation with it, if its vectors disagree."""
        try:
            folder = wanted.embedding_release(release)
            self._check_room(folder)
            other = Loader("embedding", self._embedder).need([folder])
        except (ModelError, StoreError) as error:
            self._set_aside(database, serving, str(error))
            return
        verdict = gate.compare(database, serving, self._indexer_for(serving).embedder, other, self._goes_on)
        if verdict is None:
            return
        if verdict.why:
            if switching.rebuild(database, serving, verdict.why):
                log("disagreed", "warning", generation=serving.id, why=verdict.why)
        elif switching.adopt(database, serving, verdict.figures):
            log("adopted", generation=serving.id, release=release, **verdict.figures)
        del other
        heap.give_back()

    def _embedder(self, folder: Path) -> Embedder:
        return Embedder(folder, threads=self._settings.threads)

    def _goes_on(self) -> bool:
        heartbeat.beat(self._settings.heartbeat)
        return not self.stop.is_set()

    def _process(self, database: Database, item: Item) -> None:
        started = time.monotonic()
        generation = generations.find(database, item.generation_id)
        if generation is None:  # dropped since, and the item with it
            return
        try:
            _must_cut_alike(generation)
        except StoreError:
            jobs.release(database, item.id, self.name)
            raise
        try:
            indexer = self._indexer_for(generation)
        except ModelError as error:
            # A model that cannot be loaded is no fault of the document.
            jobs.release(database, item.id, self.name)
            if generation.state == "active":
                raise
            self._set_aside(database, generation, str(error))
            return
        if self._aside.pop(generation.id, None):
            switching.stall(database, generation, None)
        try:
            stored = self._index(database, item, indexer)
        except Interrupted:
            jobs.release(database, item.id, self.name)
            self.metrics.items.labels("released").inc()
            log("released", item=item.id)
        except psycopg.OperationalError as error:
            if not _is_the_databases_fault(error, database):
                self._fail(database, item, error)
                return
            raise
        except Exception as error:
            if generations.find(database, item.generation_id) is None:
                # It was dropped in the middle, and the item with it.
                log("dropped", item=item.id)
                return
            # Whatever a document does to the code, it must not keep the next one from being indexed.
            self._fail(database, item, error)
        else:
            event = "indexed" if stored is not None else "dropped"
            seconds = time.monotonic() - started
            self.metrics.worked(event, seconds, passages=stored or 0, embedded=indexer.embedded)
            log(event, item=item.id, chunks=stored, embedded=indexer.embedded, ms=round(seconds * 1000, 1))

    def _index(self, database: Database, item: Item, indexer: Indexer) -> int | None:
        """Number of chunks stored, None if the item turned out not to be ours any more."""
        with LeaseKeeper(self._where, item.id, self.name, seconds=self._settings.lease) as lease:

            def go_on() -> bool:
                heartbeat.beat(self._settings.heartbeat)
                return lease.held and not self.stop.is_set()

            known = partial(results.known_vectors, database, indexer.generation)
            chunks = indexer.index(item, go_on, known)
        if not results.complete(database, item, self.name, indexer.generation, chunks):
            return None
        return len(chunks)

    def _indexer_for(self, generation: Generation) -> Indexer:
        """ModelError when its model cannot be loaded, or there is no memory for it beside those that are."""
        loader = self._loaders.get(generation.id)
        if loader is None:
            if generation.state != "active":
                self._check_room(next(wanted.embedding_candidates(generation)))
            loader = self._loaders[generation.id] = Loader("embedding", self._embedder)
        embedder = loader.need(wanted.embedding_candidates(generation))
        current = self._indexers.get(generation.id)
        if current is None or not current.serves(generation, embedder):
            current = self._indexers[generation.id] = Indexer(generation, embedder, self._analyser)
            log("model_loaded", generation=generation.id, release=embedder.release_id)
            if loader.degraded:
                log("degraded", "warning", why=loader.degraded)
        return current

    def _check_room(self, folder: Path) -> None:
        """ModelError where there is no memory for another model beside those that are loaded."""
        loaded = [indexer.embedder.folder.folder for indexer in self._indexers.values() if indexer.embedder.folder]
        if why := footprint.lacks(folder, loaded):
            raise ModelError(f"{folder.name} is not loaded beside another: {why} Raise stack_worker_memory_mb.")

    def _set_aside(self, database: Database, generation: Generation, why: str) -> None:
        self._aside[generation.id] = time.monotonic() + SET_ASIDE
        switching.stall(database, generation, why)
        log("set_aside", "warning", generation=generation.id, why=why)

    def _forget(self, gone: set[int]) -> None:
        """Free the models of generations that there are no more."""
        for generation in gone:
            self._indexers.pop(generation)
            self._loaders.pop(generation)
            log("model_freed", generation=generation)
        if gone:
            heap.give_back()

    def _prove(self, indexer: Indexer) -> None:
        indexer.prove_alive()
        self._proven_at = time.monotonic()
        heartbeat.beat(self._settings.heartbeat)

    def _fail(self, database: Database, item: Item, error: Exception) -> None:
        log_exception("failed", error)
        reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
        settings = self._settings
        state = jobs.fail(
            database, item.id, self.name, reason, max_attempts=settings.max_attempts, retry_seconds=settings.retry
        )
        self.metrics.items.labels("parked" if state == "parked" else "failed").inc()
        log("attempt_failed", "warning", item=item.id, attempt=item.attempts, state=state)

    def _give_back(self, database: Database) -> None:
        """What was at hand when the database went away: no fault of the document, however often it happens."""
        if held := jobs.release_held(database, self.name):
            self.metrics.items.labels("released").inc(held)
            log("given_back", items=held)


def _must_cut_alike(generation: Generation) -> None:
    """StoreError when another version of the code is to fill it, which is being deployed or was just put back."""
    if generation.cut != (chunker.VERSION, analyser.VERSION):
        raise StoreError(
            f"The index is to be cut by {generation.chunker} and analysed by {generation.analyser}; this worker has "
            f"{chunker.VERSION} and {analyser.VERSION}. A worker of the deployed version goes on; deploy again if "
            "there is none."
        )


def _is_the_databases_fault(error: psycopg.OperationalError, database: Database) -> bool:
    """False for what this document would cause again: a value too large, a statement too slow."""
    state = error.sqlstate or ""
    # Classes 40 (rolled back, worth another try), 53 (no space, memory or connection left) and 58 (the disk fails).
    return bool(database.broken or database.closed or state[:2] in ("", "40", "53", "58"))
