"""POST /search."""

import unicodedata
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app import filtering
from app.answers import SearchAnswer, answered
from app.retrieval import Fusion, Request
from app.services import Needs, Services
from app.settings import Mode
from app.text_input import check_text

router = APIRouter()


class SearchRequest(BaseModel):
    """`fusion` vectors or words leaves the other out.

    `rerank` off leaves the first order as it is; auto asks the reranker where it can change the answer in time; always
    asks it as far as the deadline allows; shadow does so too, keeps the first order, and tells what would have changed.
    Left out it is the box's own choice; true means auto and false means off.

    `filter` names fields of the metadata: {"lang": "ko", "shelf": [1, 2], "sold": {"gte": "2026-01-01"}}.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "반품 기간", "top_k": 3, "filter": {"lang": ["ko", "en"]}}]}
    )

    query: str
    top_k: Annotated[int, Field(ge=1, le=100)] = 10
    rerank: StrictBool | Mode | None = None
    fusion: Fusion = "hybrid"
    filter: dict[str, Any] = Field(default_factory=dict)


@router.post("/search", **answered(SearchAnswer))
def search(request: SearchRequest, services: Needs) -> dict[str, Any]:
    """The documents that answer the query best, each with its best passage.

    `highlights` and `title_highlights` of a result are [start, end] in characters (code points) of its text and title.
    """
    query = unicodedata.normalize("NFC", check_text(request.query, "query", most=services.settings.max_query))
    filters = filtering.parse(request.filter)
    wanted = Request(query, request.top_k, _mode(request, services), request.fusion, filters)
    answer = services.search.run(services.models.get, wanted)
    services.metrics.searched(answer)
    return answer


def _mode(request: SearchRequest, services: Services) -> Mode:
    if request.rerank is None:
        return services.settings.rerank_mode
    if isinstance(request.rerank, bool):
        return "auto" if request.rerank else "off"
    return request.rerank
