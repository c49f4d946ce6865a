"""POST /v1/rerank, in the shape that Cohere and Jina share."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.answers import RerankAnswer, answered
from app.errors import ApiError
from app.models import describe
from app.services import Needs
from app.text_input import check_count, check_model, check_text
from app.waiting import gone
from pipeline.reranker import in_order

router = APIRouter()


class Candidate(BaseModel):
    """A document given as an object."""

    text: str


class RerankRequest(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "How long may I keep it?",
                    "documents": ["Returns take 30 days.", {"text": "배송은 3일."}],
                    "top_n": 1,
                }
            ]
        }
    )

    query: str
    documents: list[str | Candidate]
    model: str | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False


@router.post("/v1/rerank", **answered(RerankAnswer))
@router.post("/v2/rerank", summary="Rerank, as Cohere's second version asks for it", **answered(RerankAnswer))
def rerank(request: RerankRequest, services: Needs) -> dict[str, Any]:
    """The documents ordered by how well they answer the query, best first. 503 while no reranker can be served."""
    settings = services.settings
    check_text(request.query, "query", most=settings.max_text)
    check_count(request.documents, "documents", most=settings.max_candidates)
    texts = [entry if isinstance(entry, str) else entry.text for entry in request.documents]
    for index, text in enumerate(texts):
        check_text(text, f"documents.{index}", most=settings.max_text, empty_allowed=True)
    loaded = services.models.get()
    reranker = loaded.reranker
    if reranker is None:
        raise ApiError(503, f"Reranking is off. {loaded.reranker_degraded}", code="reranker_unavailable")
    name = describe(reranker)["name"]
    check_model(request.model, name, reranker.release_id)
    ranked = in_order(reranker.score(request.query, texts, gone=gone()))
    results = [
        {"index": entry["idx"], "relevance_score": entry["score"]}
        | ({"document": {"text": texts[entry["idx"]]}} if request.return_documents else {})
        for entry in ranked[: request.top_n]
    ]
    return {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": name or reranker.release_id or None,
        "results": results,
        "meta": {"documents": len(texts)},
    }
