"""The application: routes, error shape and guard around the services."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI, Security

from app import errors
from app.answers import BEARER, ERRORS
from app.gauges import Gauges
from app.guard import Guard
from app.routes import admin, documents, embeddings, health, models, page, rerank, search
from app.services import SERVER_THREADS, Services


def create_app(services: Services) -> FastAPI:
    """The service over `services`, which it starts and closes."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(services.keys.watch())
        to_thread.current_default_thread_limiter().total_tokens = SERVER_THREADS
        services.models.start()
        yield
        watching.cancel()
        await services.limiter.close()
        services.close()

    # The interactive documentation pages would load scripts from elsewhere.
    app = FastAPI(title="onebox", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.services = services
    app.include_router(health.router, responses={name: ERRORS[name] for name in (503, "default")})
    app.include_router(page.router)
    for module in (models, embeddings, rerank, documents, search, admin):
        app.include_router(module.router, dependencies=[Security(BEARER)], responses=ERRORS)
    errors.install(app)
    app.add_middleware(Guard, services=services)
    services.metrics.registry.register(Gauges(services))
    return app
