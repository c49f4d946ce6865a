"""POST /v1/embeddings, in OpenAI's shape."""

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.answers import EmbeddingList, answered
from app.errors import ApiError
from app.models import describe
from app.services import Needs
from app.text_input import check_count, check_model, check_text
from app.waiting import gone
from pipeline.embedder import LongTexts
from pipeline.errors import TooLongError

router = APIRouter()
# Checked by hand: what is wrong with the tenth text of a list is to be said of the tenth text.
_INPUT = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}


class EmbeddingsRequest(BaseModel):
    """`input_type` is ours: E5 and its like embed questions and passages differently.

    So is `long_texts`, for texts longer than the model reads: cut (and the answer says `truncated`), refuse, or
    windows, which gives the mean of the vectors of its parts.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "multilingual-e5-small:query", "input": "반품은 며칠 안에 할 수 있나요?"},
                {
                    "input": ["Returns take 30 days."],
                    "input_type": "passage",
                    "encoding_format": "float",
                },
            ]
        }
    )

    input: Annotated[Any, WithJsonSchema(_INPUT)]
    model: str | None = Field(None, description="The name of the model, as GET /v1/models lists it.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    input_type: Literal["query", "passage"] | None = None
    long_texts: LongTexts = "cut"


@router.post("/v1/embeddings", **answered(EmbeddingList))
def create_embeddings(request: EmbeddingsRequest, services: Needs) -> dict[str, Any]:
    """Vectors of one text or of several, in their order."""
    texts = _texts(request.input, services.settings.max_inputs, services.settings.max_text)
    embedder = services.models.get().embedder
    name = describe(embedder)["name"]
    role = request.input_type or check_model(request.model, name, embedder.release_id)
    if request.dimensions not in (None, embedder.dim):
        raise ApiError(
            400,
            f"dimensions is {request.dimensions}; this model has {embedder.dim} and cannot be shortened.",
            param="dimensions",
        )
    try:
        encoded = services.vectors.encode(embedder, texts, input_type=role, long_texts=request.long_texts, gone=gone())
    except TooLongError as error:
        raise ApiError(
            400,
            f"input {error.index} has {error.tokens} tokens, the model reads {error.limit}; shorten it, or set "
            "long_texts to cut or windows.",
            param=f"input.{error.index}",
            code="too_long",
        ) from None
    data = [
        {"object": "embedding", "index": index, "embedding": _encode(vector, request.encoding_format)}
        | ({"truncated": True} if cut else {})
        for index, (vector, cut) in enumerate(zip(encoded.vectors, encoded.truncated, strict=True))
    ]
    tokens = sum(encoded.tokens)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": name or embedder.release_id, "usage": usage}


def _texts(given: Any, most: int, longest: int) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ApiError(400, "input must be a text or a list of texts; token ids are not taken.", param="input")
    check_count(texts, "input", most=most)
    if isinstance(given, str):
        return [check_text(given, "input", most=longest)]
    return [check_text(text, f"input.{index}", most=longest) for index, text in enumerate(texts)]


def _encode(vector: np.ndarray[Any, np.dtype[np.float32]], encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    values: list[float] = vector.tolist()
    return values
