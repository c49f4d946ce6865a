"""What an administrator asks: which documents were given up, and to try them again."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from app.answers import ParkedPage, Requeued, answered
from app.services import Needs
from app.text_input import check_text
from store import jobs

router = APIRouter(prefix="/admin")
LONGEST_ID = 512


class Requeue(BaseModel):
    """Without `documents`, everything that was given up."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"documents": ["returns"]}, {}]})

    documents: list[str] | None = None


@router.get("/parked", **answered(ParkedPage))
def parked(
    services: Needs,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
) -> dict[str, Any]:
    """Items that failed too often, oldest first, each with its reason; `next` is the cursor of the next page."""
    with services.pool.connection() as database:
        items = jobs.parked(database, after=cursor, limit=limit)
    return {"parked": items, "next": items[-1]["item"] if len(items) == limit else None}


@router.post("/requeue", **answered(Requeued))
def requeue(request: Requeue, services: Needs) -> dict[str, Any]:
    """Try again what was given up; their jobs go on."""
    for index, identity in enumerate(request.documents or []):
        check_text(identity, f"documents.{index}", most=LONGEST_ID)
    with services.pool.connection() as database:
        return {"requeued": jobs.requeue(database, request.documents)}
