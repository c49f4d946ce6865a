"""What the routes work with, made once per process."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.cache import VectorCache
from app.models import Models
from app.readiness import Readiness
from app.searching import Search
from app.settings import Settings
from store.connection import Pool, open_pool

DATABASE_CONNECTIONS = 8


@dataclass(frozen=True)
class Services:
    """Everything behind the routes."""

    settings: Settings
    pool: Pool
    cache: VectorCache
    models: Models
    search: Search
    readiness: Readiness

    def close(self) -> None:
        self.models.stop()
        self.cache.close()
        self.pool.close()


def make(settings: Settings, database: str) -> Services:
    """Services for a database (libpq connection string). Nothing here waits for it."""
    pool = open_pool(database, size=DATABASE_CONNECTIONS)
    cache = VectorCache(settings.redis_url)
    models = Models(pool, settings.max_inferences)
    search = Search(pool, cache, rerank_top_k=settings.rerank_top_k, rerank_deadline=settings.rerank_deadline)
    return Services(settings, pool, cache, models, search, Readiness(pool, models))


def _of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Needs = Annotated[Services, Depends(_of)]
