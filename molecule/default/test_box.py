"""The box, seen from outside: what a client gets over HTTP, and what an administrator sees over SSH."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shlex
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import outside
from outside import call, vm


@pytest.fixture(scope="session")
def key() -> str:
    return outside.key()


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def embed(key: str, texts: list[str], **options: Any) -> list[list[float]]:
    status, body = call("/v1/embeddings", {"model": "any", "input": texts, "encoding_format": "float", **options}, key)
    if status == 404:  # the box insists on the model's name
        name = call("/health", key=key)[1]["models"]["embedding"]["name"]
        status, body = call(
            "/v1/embeddings", {"model": name, "input": texts, "encoding_format": "float", **options}, key
        )
    assert status == 200, body
    return [item["embedding"] for item in body["data"]]


def test_it_is_alive_and_ready_for_anyone() -> None:
    assert call("/livez")[0] == 200
    assert call("/readyz")[0] == 200


def test_health_without_a_key_shows_the_status_only() -> None:
    assert set(call("/health")[1]) == {"status"}


def test_health_names_the_proven_models(key: str) -> None:
    _, health = call("/health", key=key)
    assert health["status"] == "ok" and health["degraded"] == []
    assert health["models"]["embedding"]["name"] == "demo-multilingual-e5-small"
    assert health["models"]["reranker"]["name"] == "demo-reranker"
    for model in health["models"].values():
        assert model["gate"], "a model without gate figures was not proven"


@pytest.mark.parametrize(
    "path,body",
    [
        ("/v1/embeddings", {"input": "x", "model": "m"}),
        ("/v1/rerank", {"query": "x", "documents": ["y"]}),
        ("/search", {"query": "x"}),
        ("/documents", {"text": "x"}),
    ],
)
def test_without_a_key_nothing_is_answered(path: str, body: dict[str, Any]) -> None:
    status, answer = call(path, body)
    assert status == 401
    assert answer["error"]["message"]


def test_a_wrong_key_is_refused() -> None:
    assert call("/search", {"query": "x"}, key="wrong")[0] == 401


def test_the_search_key_searches_and_does_nothing_else() -> None:
    key = outside.search_key()
    assert call("/search", {"query": "x"}, key)[0] == 200
    assert set(call("/health", key=key)[1]) == {"status", "documents"}
    status, answer = call("/documents", {"text": "x"}, key)
    assert status == 403
    assert answer["error"]["code"] == "insufficient_scope" and "ingest" in answer["error"]["message"]


def test_a_key_is_added_and_revoked_without_a_restart() -> None:
    """By the file that the playbook writes; what the playbook writes into it is the payload's tests' matter."""
    plain, keys = "k" * 8 + "-added-while-it-serves-0123456789", "/var/lib/onebox/keys/keys.json"
    started = vm("docker inspect --format '{{.State.StartedAt}}' onebox-app-1")
    before = vm(f"cat {keys}")
    digest = hashlib.sha256(plain.encode()).hexdigest()
    added = json.dumps([*json.loads(before), {"name": "added", "scopes": ["search"], "sha256": digest}])
    assert call("/search", {"query": "x"}, plain)[0] == 401
    for content, status in ((added, 200), (before, 401)):
        vm(f"printf %s {shlex.quote(content)} > {keys}.new && chown --reference={keys} {keys}.new")
        vm(f"mv {keys}.new {keys}")
        deadline = time.monotonic() + 10
        while call("/search", {"query": "x"}, plain)[0] != status:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert vm("docker inspect --format '{{.State.StartedAt}}' onebox-app-1") == started


def test_vectors_are_normalised_and_korean_meets_english(key: str) -> None:
    korean, english, other = embed(
        key, ["강아지가 공원에서 논다", "a dog plays in the park", "interest rates were raised"], input_type="passage"
    )
    assert len(korean) == 384
    assert math.isclose(cosine(korean, korean), 1.0, abs_tol=1e-3)
    assert cosine(korean, english) > cosine(korean, other)


def test_query_and_passage_are_told_apart(key: str) -> None:
    assert embed(key, ["refund"], input_type="query") != embed(key, ["refund"], input_type="passage")


def test_a_vector_does_not_depend_on_its_neighbours(key: str) -> None:
    alone = embed(key, ["환불은 며칠 걸리나요?"])[0]
    among = embed(key, ["a " * 200, "환불은 며칠 걸리나요?", "short"])[1]
    assert alone == among


def test_base64_is_the_same_vector(key: str) -> None:
    name = call("/health", key=key)[1]["models"]["embedding"]["name"]
    _, body = call("/v1/embeddings", {"model": name, "input": "hello", "encoding_format": "base64"}, key)
    raw = base64.b64decode(body["data"][0]["embedding"])
    vector = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    assert vector == pytest.approx(embed(key, ["hello"])[0], abs=1e-6)


def test_the_reranker_puts_the_answer_first(key: str) -> None:
    documents = [
        "The museum opens at nine on weekdays.",
        "Tickets can be returned within fourteen days of purchase.",
        "Dogs must be kept on a leash.",
    ]
    status, body = call("/v1/rerank", {"query": "how long can I give my ticket back", "documents": documents}, key)
    assert status == 200, body
    assert body["results"][0]["index"] == 1


def test_a_document_is_found_in_both_languages_then_deleted(key: str) -> None:
    text = "The Zephyr-900 humidifier shows E-417 when its water tank is empty."
    status, body = call("/documents", {"id": "verify-1", "title": "Humidifier", "text": text}, key)
    assert status == 202, body
    deadline = time.monotonic() + 60
    while (job := call(f"/jobs/{body['job']}", key=key)[1])["status"] not in ("done", "failed"):
        assert time.monotonic() < deadline, job
        time.sleep(0.2)
    assert job["status"] == "done", job
    for query in ("E-417", "가습기에 물이 없으면 어떤 오류가 나오나요?", "humidifier out of water"):
        _, found = call("/search", {"query": query, "top_k": 3}, key)
        assert found["results"][0]["document_id"] == "verify-1", (query, found)
    assert call("/documents/verify-1", key=key, method="DELETE")[0] in (200, 204)
    _, found = call("/search", {"query": "E-417"}, key)
    assert all(result["document_id"] != "verify-1" for result in found["results"])


def test_bad_requests_are_explained_in_one_shape(key: str) -> None:
    for path, body in (("/search", {}), ("/v1/embeddings", {"model": "m", "input": []}), ("/documents", {"id": "x"})):
        status, answer = call(path, body, key)
        assert 400 <= status < 500
        assert set(answer["error"]) >= {"message", "type", "param", "code"}


def test_from_outside_only_ssh_and_the_box_listen() -> None:
    ports = {
        line.split()[3].rsplit(":", 1)[-1]
        for line in vm("ss -Hltn").splitlines()
        if not line.split()[3].startswith(("127.", "[::1]"))
    }
    assert ports == {"22", "8080"}


def test_a_scan_from_outside_finds_ssh_and_the_box() -> None:
    address = vm("ip -4 -o route get 192.0.2.1 | grep -oP 'src \\K[0-9.]+'").strip()

    def answers(port: int) -> bool:
        with socket.socket() as client:
            client.settimeout(5)
            return client.connect_ex((address, port)) == 0

    with ThreadPoolExecutor(64) as pool:
        found = {port for port, open_ in enumerate(pool.map(answers, range(1, 65536)), 1) if open_}
    assert found == {22, 8080}


def test_metrics_are_told_inside_the_containers_network_only(key: str) -> None:
    assert call("/search", {"query": "x"}, key)[0] == 200
    for host, metric in (("app", "onebox_search_stage_seconds_count"), ("worker", "onebox_worker_items_total")):
        program = f"import urllib.request as u; print(u.urlopen('http://{host}:9000/metrics').read().decode())"
        told = vm(f"docker exec onebox-app-1 python -c {shlex.quote(program)}")
        assert metric in told
        memory = re.search(r"^onebox_memory_limit_bytes (.*)$", told, re.MULTILINE)
        assert memory and float(memory[1]) == int(vm(f"docker inspect -f '{{{{.HostConfig.Memory}}}}' onebox-{host}-1"))
    assert call("/metrics", key=key)[0] == 404


def test_every_container_is_healthy() -> None:
    """Soon: nobody waited for the worker, so after a boot its first check may be still to come."""
    deadline = time.monotonic() + 90
    while states := set(vm("docker ps --format '{{.Names}} {{.Status}}'").splitlines()):
        if all("(healthy)" in state for state in states):
            return
        assert time.monotonic() < deadline, states
        time.sleep(1)
    pytest.fail("no container runs")


def test_containers_run_without_privileges() -> None:
    for identifier in vm("docker ps --quiet").split():
        box = json.loads(vm(f"docker inspect {identifier}"))[0]
        assert box["Config"]["User"] not in ("", "0", "root"), box["Name"]
        assert box["HostConfig"]["ReadonlyRootfs"], box["Name"]
        assert box["HostConfig"]["CapDrop"] == ["ALL"] and not box["HostConfig"]["CapAdd"], box["Name"]
        assert "no-new-privileges:true" in box["HostConfig"]["SecurityOpt"], box["Name"]
        assert box["HostConfig"]["Memory"] > 0, box["Name"]


def test_models_are_mounted_read_only() -> None:
    box = json.loads(vm("docker inspect onebox-app-1"))[0]
    mounts = {mount["Destination"]: mount["RW"] for mount in box["Mounts"]}
    assert mounts["/models"] is False and mounts["/srv/onebox/pipeline"] is False


def test_secrets_are_files_of_their_owner_and_nowhere_else(key: str) -> None:
    assert vm("stat -c %a /var/lib/onebox/secrets/api_key").strip() == "600"
    password = vm("cat /var/lib/onebox/secrets/postgres_password").strip()
    deployed = vm("cat /opt/onebox/current/.env /opt/onebox/current/docker-compose.yml; docker inspect $(docker ps -q)")
    places = deployed + vm(
        "cat /var/lib/onebox/keys/keys.json; docker exec onebox-app-1 sh -c 'cat /run/secrets/*'", check=False
    )
    assert key not in places and outside.search_key() not in places
    assert password not in deployed


def test_releases_match_their_manifests() -> None:
    for link in ("emb", "rerank"):
        manifest = json.loads(vm(f"cat /opt/models/{link}/manifest.json"))
        listed = "".join(f"{digest}  {name}\n" for name, digest in manifest["files"].items())
        assert "FAILED" not in vm(f"cd /opt/models/{link}/ && printf %s {shlex.quote(listed)} | sha256sum --check")


def test_the_image_carries_no_torch() -> None:
    program = 'import importlib.util as u; print([m for m in ("torch", "transformers") if u.find_spec(m)])'
    listing = vm(f"docker exec onebox-app-1 python -c {shlex.quote(program)}")
    assert listing.strip() == "[]"
