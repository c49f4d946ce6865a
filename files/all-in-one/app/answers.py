"""What answers look like, for the OpenAPI description. The tests hold real answers against it."""

from typing import Any, Literal

from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from app.retrieval import Fusion
from app.settings import Mode

# Describes the key; the guard is what checks it.
BEARER = HTTPBearer(auto_error=False, scheme_name="key", description="An API key of this box.")


class ErrorDetail(BaseModel):
    message: str = Field(description="A sentence for people.")
    type: str
    param: str | None = Field(description="The field at fault.")
    code: str | None = Field(description="A word for programs.")


class ErrorAnswer(BaseModel):
    """Every error, in OpenAI's shape."""

    error: ErrorDetail


def _error(description: str, message: str, kind: str, param: str | None, code: str, **headers: str) -> dict[str, Any]:
    example = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return {
        "model": ErrorAnswer,
        "description": description,
        "content": {"application/json": {"example": example}},
        "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()},
    }


_RETRY = {"Retry-After": "Seconds after which it is worth asking again."}
# Of every route; `default` stands for what has no line of its own.
ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("Something in the request is wrong.", "query is empty.", "invalid_request_error", "query", "empty"),
    401: _error(
        "The key is missing or wrong.",
        "A key is needed: send the header Authorization: Bearer KEY.",
        "authentication_error",
        None,
        "invalid_api_key",
    ),
    403: _error(
        "The key may not do this.",
        "This takes the scope ingest; the key has search.",
        "permission_error",
        None,
        "insufficient_scope",
    ),
    404: _error(
        "There is no such thing.",
        "There is no document with this id.",
        "not_found_error",
        "id",
        "document_not_found",
    ),
    413: _error(
        "More than the box takes at once.",
        "input has 4096 entries, the limit is 2048.",
        "invalid_request_error",
        "input",
        "too_many",
    ),
    429: _error(
        "The box has as much to do as it takes.",
        "The box is overloaded: 32 requests are at work. Try again in 2 s.",
        "rate_limit_error",
        None,
        "overloaded",
        **_RETRY,
    ),
    503: _error(
        "Something that the box needs is not there.",
        "The database does not answer; try again.",
        "service_unavailable_error",
        None,
        "database_unavailable",
        **_RETRY,
    ),
    "default": _error(
        "Any other error, in the same shape.",
        "Something unexpected failed; the log has the details under this request's id.",
        "server_error",
        None,
        "unexpected",
    ),
}


def answered(model: type[BaseModel], status: int = 200) -> dict[str, Any]:
    """Arguments of a route's decorator: what it answers with is described, not checked at each request."""
    return {"status_code": status, "response_model": None, "responses": {status: {"model": model}}}


class Status(BaseModel):
    status: Literal["alive", "ready"]


class Queue(BaseModel):
    queued: int
    running: int
    parked: int
    oldest_seconds: float


class Health(BaseModel):
    """The more, the more the key may see; without one the status alone."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok", "degraded", "unavailable"]
    degraded: list[str] = []
    deployment: str | None = None
    models: dict[str, Any] | None = None
    inference: dict[str, Any] | None = None
    generation: dict[str, Any] | None = None
    generations: dict[str, Any] | None = Field(
        None, description="`serving`, the `next` one with its state and how far it is, and those `kept` to go back to."
    )
    documents: int | None = None
    chunks: int | None = None
    queue: Queue | None = None


class Model(BaseModel):
    id: str = Field(examples=["multilingual-e5-small:query"])
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Numbers, or little-endian float32 in base64.")
    truncated: Literal[True] | None = Field(None, description="Only the beginning of the text was read.")


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class RerankedText(BaseModel):
    text: str


class Reranked(BaseModel):
    index: int = Field(description="Position in the request's documents.")
    relevance_score: float
    document: RerankedText | None = None


class RerankAnswer(BaseModel):
    id: str
    object: Literal["list"]
    model: str | None
    results: list[Reranked] = Field(description="Best first.")
    meta: dict[str, Any]


class Refused(BaseModel):
    line: int = Field(description="From 1.")
    reason: str


class Submitted(BaseModel):
    job: str = Field(examples=["0b6f3c1e-8a52-4f0f-9d0e-6d5d1c1f7d0a"])
    documents: list[str] = Field(description="Ids, in the order of the request.", examples=[["returns"]])
    refused: list[Refused] = Field([], description="Lines that were not taken; only of a stream of lines.")


class Failure(BaseModel):
    document: str
    reason: str


class JobStatus(BaseModel):
    job: str
    status: Literal["queued", "running", "done", "failed"]
    documents: int
    done: int = Field(description="Documents that need nothing more, those that were unchanged included.")
    unchanged: int
    error: str | None
    failures: list[Failure]
    refused: list[Refused]
    created_at: str


class ListedDocument(BaseModel):
    id: str
    title: str
    source: str | None
    metadata: dict[str, Any]
    created_at: str
    updated_at: str
    state: Literal["indexed", "queued", "running", "parked"]
    reason: str | None = Field(description="Why it is parked, or failed last.")
    chunks: int


class StoredDocument(ListedDocument):
    text: str


class DocumentPage(BaseModel):
    documents: list[ListedDocument]
    next: str | None = Field(description="The cursor of the next page.")


class Deleted(BaseModel):
    id: str
    deleted: Literal[True]


class Scores(BaseModel):
    fused: float
    vector: float
    words: float
    rerank: float | None


class Result(BaseModel):
    document_id: str
    title: str
    text: str = Field(description="The document's best chunk.")
    start: int = Field(description="Where the chunk begins in the document's text, in characters.")
    end: int
    metadata: dict[str, Any]
    source: str | None
    score: float
    scores: Scores
    highlights: list[tuple[int, int]] = Field(description="Half-open ranges of characters in `text`.")
    title_highlights: list[tuple[int, int]] = Field(description="The same in `title`.")


class Shadow(BaseModel):
    """What the reranker would have changed."""

    first_changed: bool
    changed: bool
    order: list[str] = Field(description="Ids of the documents, in its order.")


class Rerank(BaseModel):
    mode: Mode
    ran: bool
    reason: Literal["off", "unavailable", "too_few", "margin", "overloaded", "deadline", "asked"]
    why: str = Field(description="Why the reranker ran, or did not.")
    candidates: int
    ms: float
    lead: float | None = Field(description="By how much the first result was ahead of the second before.")
    shadow: Shadow | None = None


class Fused(BaseModel):
    mode: Fusion
    word_weight: float


class SearchAnswer(BaseModel):
    results: list[Result] = Field(description="Best first.")
    timings_ms: dict[str, float] = Field(description="Of each stage, and `total`.")
    rerank: Rerank
    fusion: Fused
    generation: int = Field(description="Of the index; all of the answer comes from this one.")
    models: dict[str, str | None] = Field(description="The releases that computed it.")


class Parked(BaseModel):
    item: int
    document: str
    generation: int
    attempts: int
    reason: str | None
    created_at: str
    finished_at: str | None


class ParkedPage(BaseModel):
    parked: list[Parked]
    next: int | None = Field(description="The cursor of the next page.")


class Requeued(BaseModel):
    requeued: int
