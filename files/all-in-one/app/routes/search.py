"""POST /search."""

import unicodedata
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app import filtering
from app.answers import SearchAnswer, answered
from app.models import describe
from app.searching import Request
from app.services import Needs
from app.text_input import check_text

router = APIRouter()


class SearchRequest(BaseModel):
    """`fusion` vectors leaves the words out; `rerank` false leaves the first order as it is.

    `filter` names fields of the metadata: {"lang": "ko", "shelf": [1, 2], "sold": {"gte": "2026-01-01"}}.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "반품 기간", "top_k": 3, "filter": {"lang": ["ko", "en"]}}]}
    )

    query: str
    top_k: Annotated[int, Field(ge=1, le=100)] = 10
    rerank: bool = True
    fusion: Literal["hybrid", "vectors"] = "hybrid"
    filter: dict[str, Any] = Field(default_factory=dict)


@router.post("/search", **answered(SearchAnswer))
def search(request: SearchRequest, services: Needs) -> dict[str, Any]:
    """The documents that answer the query best, each with its best passage."""
    query = unicodedata.normalize("NFC", check_text(request.query, "query", most=services.settings.max_query))
    filters = filtering.parse(request.filter)
    loaded = services.models.get()
    wanted = Request(query, request.top_k, request.rerank, request.fusion, filters)
    answer = services.search.run(loaded, wanted)
    services.metrics.searched(answer)
    models = {
        "embedding": describe(loaded.embedder)["release"],
        "reranker": describe(loaded.reranker)["release"] if loaded.reranker else None,
    }
    return {**answer, "models": models}
