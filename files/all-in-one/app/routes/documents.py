"""Documents in, their jobs, documents out."""

import base64
import hashlib
import json
import unicodedata
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope

from app.answers import Deleted, DocumentPage, JobStatus, StoredDocument, Submitted, answered
from app.errors import ApiError
from app.services import Needs
from app.text_input import check_count, check_text, unusable
from store import documents, jobs

router = APIRouter()
LONGEST_ID = 512
LONGEST_TITLE = 2000
_EXAMPLE: dict[str, Any] = {
    "id": "returns",
    "title": "반품",
    "text": "상품을 받은 날부터 30일 안에 반품할 수 있습니다.",
    "metadata": {"lang": "ko"},
    "source": "https://example.com/returns",
}
_LINES = {"schema": {"type": "string"}, "example": json.dumps(_EXAMPLE, ensure_ascii=False)}
LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/jsonlines"})


class DocumentIn(BaseModel):
    """Without an id the document gets one made from its content, so the same document twice is one document."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    text: str
    id: str | None = None
    title: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)
    source: str | None = None


class DocumentChange(BaseModel):
    """The fields to replace; those left out stay."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"metadata": {"lang": "ko"}}]})

    text: str | None = None
    title: str | None = None
    metadata: dict[str, Any] | None = None
    source: str | None = None


class LinesRoute(APIRoute):
    """Takes a request only if its body is lines of JSON."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        if match == Match.FULL and _media_type(scope) not in LINES:
            return Match.NONE, {}
        return match, found


async def _body(request: Request) -> bytes:
    return await request.body()


def submit_lines(body: Annotated[bytes, Depends(_body)], services: Needs) -> dict[str, Any]:
    """Accept the good lines, refuse the others one by one; the job remembers both."""
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    check_count(lines, "documents", most=services.settings.max_documents)
    accepted: dict[str, documents.Document] = {}
    refused: list[documents.Refusal] = []
    problem: ApiError | None = None
    for number, line in lines:
        try:
            document = _line(line, number, services.settings.max_text)
            if document.id in accepted:
                raise ApiError(400, f"{number}.id is that of a line above.", param=f"{number}.id", code="repeated_id")
        except ApiError as error:
            refused.append(documents.Refusal(number, error.message))
            problem = problem or error
        else:
            accepted[document.id] = document
    if problem and not accepted:
        message = problem.message if len(lines) == 1 else f"No line can be kept, the first: {problem.message}"
        raise ApiError(problem.status, message, param=problem.param, code="invalid_lines")
    with services.pool.connection() as database:
        job = documents.submit(database, list(accepted.values()), refused)
    return {
        "job": str(job),
        "documents": list(accepted),
        "refused": [{"line": refusal.line, "reason": refusal.reason} for refusal in refused],
    }


router.add_api_route(
    "/documents",
    submit_lines,
    methods=["POST"],
    status_code=202,
    include_in_schema=False,
    route_class_override=LinesRoute,
)


@router.post(
    "/documents",
    **answered(Submitted, 202),
    openapi_extra={"requestBody": {"content": {"application/x-ndjson": _LINES}}},
)
def submit(request: DocumentIn | list[DocumentIn], services: Needs) -> dict[str, Any]:
    """Accept documents; the job tells when they can be found. The same id again replaces the document."""
    given = request if isinstance(request, list) else [request]
    check_count(given, "documents", most=services.settings.max_documents)
    accepted = [_document(entry, index, services.settings.max_text) for index, entry in enumerate(given)]
    _refuse_repeated([document.id for document in accepted])
    with services.pool.connection() as database:
        job = documents.submit(database, accepted)
    return {"job": str(job), "documents": [document.id for document in accepted]}


@router.get("/jobs/{job}", **answered(JobStatus))
def job_status(job: str, services: Needs) -> dict[str, Any]:
    """How far the documents of one request are."""
    identity = _uuid(job)
    with services.pool.connection() as database:
        status = jobs.status(database, identity) if identity else None
    if status is None:
        raise ApiError(404, f"There is no job {job[:64]!r}.", param="job", code="job_not_found")
    return status


@router.get("/documents", **answered(DocumentPage))
def listed(
    services: Needs,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str, Query(max_length=4 * LONGEST_ID)] = "",
    state: Literal["indexed", "queued", "running", "parked"] | None = None,
) -> dict[str, Any]:
    """Documents in the order of their ids, without their texts; `next` is the cursor of the next page."""
    with services.pool.connection() as database:
        found = documents.page(database, after=_position(cursor), limit=limit, state=state)
    return {"documents": found, "next": _cursor(found[-1]["id"]) if len(found) == limit else None}


@router.patch("/documents/{document_id:path}", **answered(Submitted, 202))
def change(
    document_id: Annotated[str, Path(max_length=LONGEST_ID)], request: DocumentChange, services: Needs
) -> dict[str, Any]:
    """Replace some fields. Only what the change touches is embedded again: nothing, if title and text stay."""
    changes = request.model_dump(exclude_unset=True)
    for name in ("text", "title", "metadata"):
        if changes.get(name, "") is None:
            raise ApiError(400, f"{name} cannot be null; leave it out to keep it.", param=name, code="invalid_value")
    if not changes:
        raise ApiError(400, "Nothing to change was given.", param="body", code="empty")
    check_text(changes.get("text", "kept"), "text", most=services.settings.max_text)
    check_text(changes.get("title", ""), "title", most=LONGEST_TITLE, empty_allowed=True)
    check_text(changes.get("source") or "", "source", most=LONGEST_TITLE, empty_allowed=True)
    if problem := unusable(changes.get("metadata")):
        raise ApiError(400, f"metadata {problem}.", param="metadata", code="invalid_text")
    composed = {name: _composed(value) if name in ("title", "text") else value for name, value in changes.items()}
    with services.pool.connection() as database:
        job = documents.change(database, document_id, composed) if not unusable(document_id) else None
    if job is None:
        raise _unknown()
    return {"job": str(job), "documents": [document_id]}


@router.get("/documents/{document_id:path}", **answered(StoredDocument))
def read(document_id: Annotated[str, Path(max_length=LONGEST_ID)], services: Needs) -> dict[str, Any]:
    """The document as it was given, with the state of its index entry."""
    with services.pool.connection() as database:
        document = documents.get(database, document_id) if not unusable(document_id) else None
    if document is None:
        raise _unknown()
    return document


@router.delete("/documents/{document_id:path}", **answered(Deleted))
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
    return documents.Document(identity, _composed(given.text), _composed(given.title), given.metadata, given.source)


def _composed(text: str) -> str:
    """Composed characters: a text from a Mac may spell Korean in single letters, which no model was trained on."""
    return unicodedata.normalize("NFC", text)


def _line(line: bytes, number: int, longest: int) -> documents.Document:
    """The document of one line. ApiError when it cannot be kept."""
    try:
        given = DocumentIn.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        param = ".".join(map(str, (number, *problem["loc"])))
        raise ApiError(400, f"{param}: {problem['msg']}.", param=param, code=problem["type"]) from None
    return _document(given, number, longest)


def _media_type(scope: Scope) -> str:
    return Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()


def _cursor(identity: str) -> str:
    return base64.urlsafe_b64encode(identity.encode("utf-8")).decode("ascii").rstrip("=")


def _position(cursor: str) -> str:
    """The id that a cursor stands for. ApiError when it is none of ours."""
    try:
        position = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("utf-8")
    except ValueError:
        position = "\x00"
    if unusable(position):
        message = "cursor is not one that a page before gave as `next`."
        raise ApiError(400, message, param="cursor", code="invalid_cursor")
    return position


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
