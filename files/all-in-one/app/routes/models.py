"""GET /v1/models, in OpenAI's shape."""

from typing import Any

from fastapi import APIRouter

from app.answers import Model, ModelList, answered
from app.errors import ApiError
from app.models import Loaded, describe
from app.services import Needs

router = APIRouter()


@router.get("/v1/models", **answered(ModelList))
def list_models(services: Needs) -> dict[str, Any]:
    """What a request may name as its `model`. NAME:query and NAME:passage say what the texts are."""
    return {"object": "list", "data": [_model(name) for name in _names(services.models.get())]}


@router.get("/v1/models/{model}", **answered(Model))
def read_model(model: str, services: Needs) -> dict[str, Any]:
    """One of them."""
    names = _names(services.models.get())
    if model not in names:
        message = f"The model {model[:100]!r} is not served here; {', '.join(names)} are."
        raise ApiError(404, message, param="model", code="model_not_found")
    return _model(model)


def _names(loaded: Loaded) -> list[str]:
    embedding = describe(loaded.embedder)
    name = embedding["name"] or embedding["release"]
    names = [name, f"{name}:query", f"{name}:passage"]
    if loaded.reranker is not None:
        reranker = describe(loaded.reranker)
        names.append(reranker["name"] or reranker["release"])
    return names


def _model(name: str) -> dict[str, Any]:
    # When a model was made says nothing to a client, but OpenAI's need a number there.
    return {"id": name, "object": "model", "created": 0, "owned_by": "onebox"}
