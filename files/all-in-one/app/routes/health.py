"""Alive, ready, healthy: three different questions."""

from typing import Any

import psycopg
from fastapi import APIRouter, Request
from psycopg_pool import PoolTimeout

from app.answers import Health, Status, answered
from app.errors import ApiError
from app.models import describe
from app.services import Needs, Services
from pipeline import golden
from pipeline.embedder import Embedder
from pipeline.reranker import Reranker
from store import generations, jobs, switching

router = APIRouter()


@router.get("/livez", **answered(Status))
async def live() -> dict[str, str]:
    """The event loop turns."""
    return {"status": "alive"}


@router.get("/readyz", **answered(Status))
def ready(services: Needs) -> dict[str, str]:
    """Embeds and reranks for real (again after a few seconds), and asks the database."""
    if why := services.readiness.why_not():
        raise ApiError(503, why, code="not_ready", retry_after=2)
    return {"status": "ready"}


@router.get("/health", **answered(Health))
def health(request: Request, services: Needs) -> dict[str, Any]:
    """Everything an operator asks first, with an admin key. Always 200: /readyz is for probes.

    Any other key sees the status and how many documents there are; without one the status alone.
    """
    services.cache.check()
    why = services.readiness.why_not()
    degraded = services.degraded()
    status = "unavailable" if why else "degraded" if degraded else "ok"
    key = request.scope["key"]
    if key is None:
        return {"status": status}
    if not key.may("admin"):
        return {"status": status, "documents": _database(services)["documents"]}
    if why:
        degraded = [why, *degraded]
    answer = {"status": status, "degraded": degraded, "deployment": services.settings.deployment or None}
    return answer | _models(services) | _database(services)


def _models(services: Services) -> dict[str, Any]:
    loaded = services.models.loaded
    if loaded is None:
        return {"models": None, "inference": None}
    return {
        "models": {
            "embedding": _model(loaded.embedder),
            "reranker": _model(loaded.reranker) if loaded.reranker else None,
        },
        "inference": {
            "threads": services.models.lanes.threads,
            "query": services.models.lanes.query.state(),
            "bulk": services.models.lanes.bulk.state(),
        },
    }


def _model(model: Embedder | Reranker) -> dict[str, Any]:
    manifest = model.folder.manifest if model.folder else {}
    return {**describe(model), "proven_here": golden.proven_here(manifest)}


def _database(services: Services) -> dict[str, Any]:
    try:
        with services.pool.connection() as database:
            active = generations.active(database)
            documents = generations.count_documents(database)
            queue = jobs.queue(database)
            status = switching.status(database)
    except (psycopg.Error, PoolTimeout):
        return {"generation": None, "generations": None, "documents": None, "chunks": None, "queue": None}
    generation = (
        {"id": active.id, "release": active.release, "space": active.space, "dimension": active.dimension}
        if active
        else None
    )
    return {
        "generation": generation,
        "generations": status,
        "documents": documents,
        "chunks": active.chunks if active else 0,
        "queue": queue,
    }
