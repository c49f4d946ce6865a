"""The official clients of OpenAI, Cohere and LangChain, unchanged, against a real box: answers and errors."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import cohere
import openai
import pytest
from box import HASHES, KEYS
from cohere.errors import ForbiddenError, NotFoundError, TooManyRequestsError, UnauthorizedError
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr
from served import Served, served

from app.keys import key_of
from app.settings import Settings

DOCUMENTS = ["Shipping is free for orders", "반품은 7일 안에 할 수 있습니다", "오류 코드 E-204"]


KEYS_OF_ALL_KINDS = (
    *HASHES,
    key_of("feeder", ["ingest"], "ingest-key"),
    replace(key_of("slow", ["search"], "slow-key"), rate_limit=1),
)


@pytest.fixture(scope="module")
def box(
    ready_database: str, model_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    settings = Settings(keys=KEYS_OF_ALL_KINDS, max_body=100_000, max_inputs=8, max_candidates=10, max_text=5000)
    with served(ready_database, settings, tmp_path_factory.mktemp("worker")) as box:
        yield box


@pytest.fixture(scope="module")
def client(box: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key=KEYS[0], max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def reranking(box: Served) -> cohere.Client:
    return cohere.Client(api_key=KEYS[0], base_url=box.url)


@pytest.fixture
def full(box: Served) -> Iterator[None]:
    """A box with as many queries at work as it takes."""
    lane = box.services.models.lanes.query
    with ExitStack() as stack:
        for _ in range(lane.limits.jobs):
            stack.enter_context(lane.job(1))
        yield


# OpenAI


def test_openai_gets_the_same_vectors_as_base64_and_as_floats(client: openai.OpenAI) -> None:
    default = client.embeddings.create(model="tiny-embedding", input=DOCUMENTS)  # asks for base64
    floats = client.embeddings.create(model="tiny-embedding", input=DOCUMENTS, encoding_format="float")
    alone = client.embeddings.create(model="tiny-embedding", input=DOCUMENTS[1], dimensions=32)
    assert [entry.index for entry in default.data] == [0, 1, 2]
    assert default.data[1].embedding == floats.data[1].embedding == alone.data[0].embedding
    assert len(alone.data[0].embedding) == 32
    assert default.usage.total_tokens == default.usage.prompt_tokens > 0


def test_openai_says_query_or_passage_by_the_models_name_or_a_field(client: openai.OpenAI) -> None:
    named = client.embeddings.create(model="tiny-embedding:query", input="반품").data[0].embedding
    told = client.embeddings.create(model="tiny-embedding", input="반품", extra_body={"input_type": "query"})
    passage = client.embeddings.create(model="tiny-embedding:passage", input="반품").data[0].embedding
    assert named == told.data[0].embedding != passage


def test_openai_lists_the_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["tiny-embedding", "tiny-embedding:query", "tiny-embedding:passage", "tiny-reranker"]
    assert client.models.retrieve("tiny-embedding:query").object == "model"
    with pytest.raises(openai.NotFoundError, match="tiny-embedding"):
        client.models.retrieve("gpt-5")


@pytest.mark.parametrize("key", ["wrong", "the-key2"])
def test_openai_with_a_wrong_key_is_not_authenticated(client: openai.OpenAI, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        client.with_options(api_key=key).embeddings.create(model="tiny-embedding", input="x")
    assert (refused.value.code, refused.value.type) == ("invalid_api_key", "authentication_error")
    assert refused.value.request_id


def test_openai_with_a_key_for_something_else_is_not_permitted(client: openai.OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.with_options(api_key="ingest-key").embeddings.create(model="tiny-embedding", input="x")
    assert (refused.value.code, refused.value.type) == ("insufficient_scope", "permission_error")


def test_openai_is_told_when_to_come_back_with_a_key_that_asked_too_often(client: openai.OpenAI) -> None:
    slow = client.with_options(api_key="slow-key")
    slow.models.list()
    with pytest.raises(openai.RateLimitError) as refused:
        slow.models.list()
    assert refused.value.code == "rate_limited"
    assert int(refused.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("wanted", "kind", "status", "param"),
    [
        ({"model": "text-embedding-3-small", "input": "x"}, openai.NotFoundError, 404, "model"),
        ({"input": ""}, openai.BadRequestError, 400, "input"),
        ({"input": []}, openai.BadRequestError, 400, "input"),
        ({"input": [1, 2, 3]}, openai.BadRequestError, 400, "input"),
        ({"input": "x", "dimensions": 8}, openai.BadRequestError, 400, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, openai.BadRequestError, 400, "encoding_format"),
        ({"input": ["x"] * 9}, openai.APIStatusError, 413, "input"),
        ({"input": "x" * 5001}, openai.APIStatusError, 413, "input"),
        ({"input": "x" * 100_001}, openai.APIStatusError, 413, None),
    ],
)
def test_openai_gets_an_error_of_the_right_kind_that_names_the_field(
    client: openai.OpenAI, wanted: dict[str, Any], kind: type[openai.APIStatusError], status: int, param: str | None
) -> None:
    with pytest.raises(kind) as refused:
        client.embeddings.create(**({"model": "tiny-embedding"} | wanted))
    assert (refused.value.status_code, refused.value.param) == (status, param)
    assert isinstance(refused.value.body, dict) and refused.value.body["message"]


@pytest.mark.usefixtures("full")
def test_openai_is_told_when_to_come_back_to_a_full_box(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as refused:
        client.embeddings.create(model="tiny-embedding", input="a question that no cache has")
    assert refused.value.code == "overloaded"
    assert int(refused.value.response.headers["retry-after"]) >= 1


# Cohere and Jina


def test_cohere_gets_the_best_document_first(reranking: cohere.Client) -> None:
    answer = reranking.rerank(
        model="tiny-reranker", query="반품은 7일 안에", documents=DOCUMENTS, top_n=2, return_documents=True
    )
    assert answer.results[0].index == 1 and len(answer.results) == 2
    assert answer.results[0].document is not None and answer.results[0].document.text == DOCUMENTS[1]
    assert answer.results[0].relevance_score >= answer.results[1].relevance_score


def test_cohere_may_give_objects(reranking: cohere.Client) -> None:
    objects = [{"text": text, "url": "x"} for text in DOCUMENTS]
    assert reranking.rerank(model="tiny-reranker", query="반품은 7일 안에", documents=objects).results[0].index == 1


def test_coheres_second_version_works_too(box: Served) -> None:
    client = cohere.ClientV2(api_key=KEYS[0], base_url=box.url)
    answer = client.rerank(model="tiny-reranker", query="반품은 7일 안에", documents=DOCUMENTS, top_n=1)
    assert [result.index for result in answer.results] == [1]


def test_cohere_gets_an_error_of_the_right_kind(box: Served, reranking: cohere.Client) -> None:
    with pytest.raises(UnauthorizedError):
        cohere.Client(api_key="wrong", base_url=box.url).rerank(model="tiny-reranker", query="x", documents=["x"])
    with pytest.raises(ForbiddenError):
        cohere.ClientV2(api_key="ingest-key", base_url=box.url).rerank(model="m", query="x", documents=["x"])
    with pytest.raises(NotFoundError) as unknown:
        reranking.rerank(model="rerank-v3.5", query="x", documents=["x"])
    assert unknown.value.body["error"]["code"] == "model_not_found"
    for documents, status in (([], 400), (["x"] * 11, 413)):
        with pytest.raises(cohere.core.ApiError) as refused:
            reranking.rerank(model="tiny-reranker", query="x", documents=documents)
        assert refused.value.status_code == status


@pytest.mark.usefixtures("full")
def test_cohere_is_told_when_to_come_back_to_a_full_box(reranking: cohere.Client) -> None:
    with pytest.raises(TooManyRequestsError) as refused:
        reranking.rerank(model="tiny-reranker", query="x", documents=["y"], request_options={"max_retries": 0})
    assert refused.value.headers is not None and int(refused.value.headers["retry-after"]) >= 1


# LangChain


def langchain(box: Served, model: str, key: str = KEYS[0]) -> OpenAIEmbeddings:
    # Without the check it sends texts; with it token ids of OpenAI's own models, which mean nothing to others.
    return OpenAIEmbeddings(
        base_url=f"{box.url}/v1", api_key=SecretStr(key), model=model, check_embedding_ctx_length=False
    )


def test_langchain_embeds_documents_and_a_query(box: Served) -> None:
    vectors = langchain(box, "tiny-embedding:passage").embed_documents([*DOCUMENTS, "one more"], chunk_size=2)
    assert [len(vector) for vector in vectors] == [32] * 4
    query = langchain(box, "tiny-embedding:query").embed_query(DOCUMENTS[1])
    closeness = [sum(a * b for a, b in zip(query, vector, strict=True)) for vector in vectors]
    assert closeness.index(max(closeness)) == 1


def test_langchain_passes_openais_errors_on(box: Served) -> None:
    with pytest.raises(openai.AuthenticationError):
        langchain(box, "tiny-embedding", key="wrong").embed_query("x")
    with pytest.raises(openai.NotFoundError):
        langchain(box, "text-embedding-3-large").embed_query("x")
