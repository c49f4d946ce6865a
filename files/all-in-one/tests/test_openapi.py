"""Requests made up from the OpenAPI description: none breaks it, refused ones leave nothing behind."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest
import schemathesis
from box import HASHES, KEYS
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
)
from served import Served, served

from app.settings import Settings

HEADERS = {"Authorization": f"Bearer {KEYS[0]}"}
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    ignored_auth,
]
EXAMPLES = 40  # of each operation
REQUESTS = 200  # at least, together
STORED = (
    "SELECT (SELECT count(*) FROM documents) AS documents, (SELECT max(updated_at) FROM documents) AS updated,"
    " (SELECT count(*) FROM jobs) AS jobs, (SELECT count(*) FROM items) AS items,"
    " (SELECT count(*) FROM job_refusals) AS refusals"
)


@pytest.fixture(scope="module")
def box(ready_database: str, model_environment: dict[str, str]) -> Iterator[Served]:
    """Without a worker: what is stored changes by requests alone."""
    with served(ready_database, Settings(keys=HASHES, max_body=100_000, max_text=5000), None) as box:
        yield box


@pytest.fixture(scope="module")
def description(box: Served) -> dict[str, Any]:
    content: dict[str, Any] = httpx2.get(f"{box.url}/openapi.json", headers=HEADERS).json()
    return content


@pytest.fixture(scope="module")
def api(box: Served, description: dict[str, Any]) -> Any:
    schema = schemathesis.openapi.from_dict(description)
    schema.config.update(base_url=box.url)
    return schema


def stored(box: Served) -> Any:
    with box.services.pool.connection() as database:
        return database.execute(STORED).fetchone()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_breaks_the_box(box: Served, api: Any, mode: GenerationMode) -> None:
    count = 0
    for operation in api.get_all_operations():
        # What takes no parameter cannot be asked wrongly.
        with suppress(Unsatisfiable):
            count += attack(box, operation.ok().as_strategy(generation_mode=mode))
    assert count > REQUESTS


def attack(box: Served, cases: Any) -> int:
    """Send what was made up for one operation; how many requests."""
    sent = 0

    @given(case=cases)
    @settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=HealthCheck)
    def send(case: schemathesis.Case) -> None:
        nonlocal sent
        before = stored(box)
        response = case.call(headers=HEADERS)
        sent += 1
        if response.status_code >= 400:
            assert stored(box) == before, case.as_curl_command()
        case.validate_response(response, headers=HEADERS, checks=CHECKS)

    send()
    return sent


def operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_body_has_an_example(description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    for name, operation in operations(description):
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            given = content["schema"]
            references = [given.get("$ref"), *(entry.get("$ref") for entry in given.get("anyOf", []))]
            examples = [schemas[ref.rpartition("/")[2]].get("examples") for ref in references if ref]
            assert "example" in content or any(examples), f"{name} {media_type}"


def test_every_answer_is_described(description: dict[str, Any]) -> None:
    for name, operation in operations(description):
        for status, answer in operation["responses"].items():
            assert "$ref" in answer["content"]["application/json"]["schema"], f"{name} {status}"


def test_what_takes_a_key_says_so(description: dict[str, Any]) -> None:
    without = {name for name, operation in operations(description) if "security" not in operation}
    assert without == {"GET /livez", "GET /readyz", "GET /health"}
    assert description["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
