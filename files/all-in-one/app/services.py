"""What the routes work with, made once per process."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.cache import VectorCache
from app.keys import Keys
from app.limiter import Limiter
from app.metrics import Metrics
from app.models import Models
from app.readiness import Readiness
from app.reranking import Reranking
from app.retrieval import Retrieval
from app.searching import Search
from app.settings import Settings
from app.vectors import Vectors
from pipeline.lanes import Lanes, Limits
from store.connection import Pool, open_pool

DATABASE_CONNECTIONS = 8
# Requests that compute or wait for it. Each holds a thread of the server's, which has more than both together:
# bulk work, however much, leaves threads for queries, and both leave some for health and ingestion.
QUERY_REQUESTS = 32
BULK_REQUESTS = 16
SERVER_THREADS = 64
BULK_TOKENS = 1_000_000  # that wait at once: memory is bounded with them
# Requests at work at once, whatever they want: each gets a thread at once, and health and readiness find one too.
# More are told to come back; otherwise they would wait where nothing is predicted.
REQUESTS = 56


@dataclass(frozen=True)
class Services:
    """Everything behind the routes."""

    settings: Settings
    pool: Pool
    cache: VectorCache
    models: Models
    vectors: Vectors
    search: Search
    readiness: Readiness
    keys: Keys
    limiter: Limiter
    metrics: Metrics

    def degraded(self) -> list[str]:
        """What does not work as it should, in sentences; the box answers all the same."""
        loaded = self.models.loaded
        reasons = [self.cache.degraded, self.keys.problem, *(loaded.degraded if loaded else []), self.models.stopped]
        return [reason for reason in reasons if reason]

    def close(self) -> None:
        self.models.stop()
        # What the models wait for in the database ends with it.
        self.pool.close()
        self.search.close()
        self.models.join()
        self.cache.close()


def make(settings: Settings, database: str, *, switches: bool = True) -> Services:
    """Services for a database (libpq connection string). Nothing here waits for it.

    Of the processes over one database only one `switches` from one generation to another; the others follow.
    """
    pool = open_pool(database, size=DATABASE_CONNECTIONS)
    cache = VectorCache(settings.redis_url)
    lanes = Lanes(
        query=Limits(jobs=QUERY_REQUESTS, wait=settings.query_wait),
        bulk=Limits(jobs=BULK_REQUESTS, tokens=BULK_TOKENS, wait=settings.bulk_wait),
    )
    models = Models(pool, lanes, switches=switches, keep=settings.keep_generations)
    vectors = Vectors(cache)
    reranking = Reranking(
        top_k=settings.rerank_top_k, deadline=settings.rerank_deadline, margins=settings.rerank_margins
    )
    retrieval = Retrieval(pool, vectors, cores=lanes.threads)
    search = Search(retrieval, reranking)
    keys = Keys(settings.keys, settings.key_file)
    limiter = Limiter(settings.redis_url)
    readiness = Readiness(pool, models)
    return Services(settings, pool, cache, models, vectors, search, readiness, keys, limiter, Metrics())


def _of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Needs = Annotated[Services, Depends(_of)]
