"""The application: routes, error shape and guard around the services."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from app import errors
from app.guard import Guard
from app.routes import documents, embeddings, health, rerank, search
from app.services import Services

PAGE = Path(__file__).parent / "page.html"
# No script or style but the page's own, nothing from elsewhere, in no frame.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def create_app(services: Services) -> FastAPI:
    """The service over `services`, which it starts and closes."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.models.start()
        yield
        services.close()

    # The interactive documentation pages would load scripts from elsewhere.
    app = FastAPI(title="onebox", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.services = services
    for module in (health, embeddings, rerank, documents, search):
        app.include_router(module.router)
    errors.install(app)
    app.add_middleware(Guard, settings=services.settings)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=PAGE_HEADERS)

    return app
