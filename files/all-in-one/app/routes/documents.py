"""Documents in, their jobs, documents out."""

import hashlib
import unicodedata
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from app.errors import ApiError
from app.services import Needs
from app.text_input import check_count, check_text, unusable
from store import documents, jobs

router = APIRouter()
LONGEST_ID = 512
LONGEST_TITLE = 2000


class DocumentIn(BaseModel):
    """Without an id the document gets one made from its content, so the same document twice is one document."""

    text: str
    id: str | None = None
    title: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)
    source: str | None = None


@router.post("/documents", status_code=202)
def submit(request: DocumentIn | list[DocumentIn], services: Needs) -> dict[str, Any]:
    """Accept documents; the job tells when they can be found. The same id again replaces the document."""
    given = request if isinstance(request, list) else [request]
    check_count(given, "documents", most=services.settings.max_documents)
    accepted = [_document(entry, index, services.settings.max_text) for index, entry in enumerate(given)]
    _refuse_repeated([document.id for document in accepted])
    with services.pool.connection() as database:
        job = documents.submit(database, accepted)
    return {"job": str(job), "documents": [document.id for document in accepted]}


@router.get("/jobs/{job}")
def job_status(job: str, services: Needs) -> dict[str, Any]:
    """How far the documents of one request are."""
    identity = _uuid(job)
    with services.pool.connection() as database:
        status = jobs.status(database, identity) if identity else None
    if status is None:
        raise ApiError(404, f"There is no job {job[:64]!r}.", param="job", code="job_not_found")
    return status


@router.get("/documents/{document_id:path}")
def read(document_id: Annotated[str, Path(max_length=LONGEST_ID)], services: Needs) -> dict[str, Any]:
    """The document as it was given, with the state of its index entry."""
    with services.pool.connection() as database:
        document = documents.get(database, document_id) if not unusable(document_id) else None
    if document is None:
        raise _unknown()
    return document


@router.delete("/documents/{document_id:path}")
def delete(document_id: Annotated[str, Path(max_length=LONGEST_ID)], services: Needs) -> dict[str, Any]:
    """Remove the document and all that was computed from it, at once."""
    with services.pool.connection() as database:
        deleted = documents.delete(database, document_id) if not unusable(document_id) else False
    if not deleted:
        raise _unknown()
    return {"id": document_id, "deleted": True}


def _document(given: DocumentIn, index: int, longest: int) -> documents.Document:
    check_text(given.text, f"{index}.text", most=longest)
    check_text(given.title, f"{index}.title", most=LONGEST_TITLE, empty_allowed=True)
    check_text(given.source or "", f"{index}.source", most=LONGEST_TITLE, empty_allowed=True)
    if given.id is not None:
        check_text(given.id, f"{index}.id", most=LONGEST_ID)
    if problem := unusable(given.metadata):
        raise ApiError(400, f"{index}.metadata {problem}.", param=f"{index}.metadata", code="invalid_text")
    identity = given.id if given.id is not None else _identity(given)
    # Composed characters: a text from a Mac may spell Korean in single letters, which no model was trained on.
    title, text = (unicodedata.normalize("NFC", part) for part in (given.title, given.text))
    return documents.Document(identity, text, title, given.metadata, given.source)


def _identity(given: DocumentIn) -> str:
    content = "\x00".join((given.source or "", given.title, given.text))
    return "doc-" + hashlib.sha256(content.encode("utf-8")).hexdigest()[:24]


def _refuse_repeated(ids: list[str]) -> None:
    first: dict[str, int] = {}
    for index, identity in enumerate(ids):
        if first.setdefault(identity, index) != index:
            raise ApiError(
                400,
                f"Documents {first[identity]} and {index} have the same id; send each document once.",
                param=f"{index}.id",
                code="repeated_id",
            )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _unknown() -> ApiError:
    return ApiError(404, "There is no document with this id.", param="id", code="document_not_found")
