"""Bad input of every kind, given to the real playbook on a fresh VM: refused in words, before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from outside import play, vm


def refusal(**variables: object) -> str:
    """What site.yml says to these variables; it must fail, and before its second role."""
    code, output = play("site.yml", variables)
    assert code != 0
    assert "docker : " not in output, "the play went on after preflight"
    assert "Nothing was changed" in output, output
    return output


@pytest.mark.parametrize(
    "variables,sentences",
    [
        (
            {"models_embedding": "no-such-model"},
            ["models_embedding is 'no-such-model'", "demo-multilingual-e5-small", "models_extra_profiles"],
        ),
        ({"models_embedding": "demo-reranker"}, ["models_embedding is 'demo-reranker'", "expected one of"]),
        ({"models_embedding": ""}, ["models_embedding is ''"]),
        (
            {"models_reranker": "jina-reranker-v2-base-multilingual"},
            ["CC-BY-NC-4.0", "models_accepted_licenses", "demo-reranker"],
        ),
        (
            {"models_reranker": "mmarco-mMiniLMv2-L12-H384-v1"},
            ["models_reranker is mmarco-mMiniLMv2-L12-H384-v1", "revision is not pinned", "playbooks/pin.yml"],
        ),
        ({"models_embedding": "multilingual-e5-smal"}, ["multilingual-e5-small perhaps"]),
        (
            {"models_extra_profiles": {"mine": {"kind": "reranker", "rout": "transformers"}}},
            ["models_extra_profiles, mine: rout is not a field of a profile, did you mean route", "source is missing"],
        ),
        (
            {"models_embedding": "multilingual-e5-large", "models_build_memory_mb": 3000},
            ["models_build_memory_mb is 3000", "for a model of 2240 MB"],
        ),
        ({"models_extra_profiles": {"mine": "text"}}, ["models_extra_profiles, mine: it is 'text'"]),
        ({"models_pins": {"bge-m3": {"files": {}}}}, ["models_pins, bge-m3: revision is None"]),
        ({"models_gate_thresholds": {"min_cosin": 0.9}}, ["min_cosin is unknown, did you mean min_cosine"]),
        ({"stack_port": "eighty"}, ["stack_port", "eighty"]),
        ({"stack_port": 70000}, ["stack_port is 70000", "1 to 65535"]),
        ({"stack_listen": "everywhere"}, ["stack_listen is 'everywhere'", "127.0.0.1"]),
        ({"stack_log_level": "loud"}, ["stack_log_level", "loud"]),
        ({"docker_source": "snap"}, ["docker_source", "snap"]),
        ({"docker_extra_ca_certificates": ["/nowhere/ca.crt"]}, ["docker_extra_ca_certificates", "/nowhere/ca.crt"]),
        ({"docker_users": "debian,root", "docker_log_max_file": "many"}, ["docker_log_max_file"]),
        ({"preflight_min_disk_gb": 100000}, ["preflight_min_disk_gb = 100000", "GB free"]),
        ({"preflight_min_memory_mb": 10000000}, ["preflight_min_memory_mb = 10000000"]),
    ],
)
def test_a_bad_variable_is_named_with_its_fix(variables: dict[str, object], sentences: list[str]) -> None:
    said = refusal(**variables)
    for sentence in sentences:
        assert sentence in said


def test_all_problems_come_in_one_message() -> None:
    said = refusal(models_embedding="x", models_reranker="y", stack_listen="z", preflight_min_disk_gb=100000)
    for name in ("models_embedding", "models_reranker", "stack_listen", "preflight_min_disk_gb"):
        assert name in said


def test_a_taken_port_is_named() -> None:
    vm("systemd-run --unit=taken python3 -m http.server 8080; sleep 1")
    try:
        assert "stack_port is 8080" in refusal()
    finally:
        vm("systemctl stop taken")


def test_an_unreachable_vm_is_named_with_its_address() -> None:
    said = refusal(ansible_port=1)
    assert "127.0.0.1:1" in said and "ansible_host" in said


@contextmanager
def user_without_sudo(name: str) -> Iterator[None]:
    keys = ".ssh/authorized_keys"
    vm(f"useradd --create-home {name} && install -D -o {name} -m 0600 /home/debian/{keys} /home/{name}/{keys}")
    try:
        yield
    finally:
        vm(f"pkill -KILL -u {name}; userdel --remove {name}")


def test_a_user_without_sudo_is_named() -> None:
    with user_without_sudo("plain"):
        said = refusal(ansible_user="plain")
    assert "plain may not become root" in said and "--ask-become-pass" in said


def test_an_unsupported_system_is_named() -> None:
    vm("cp --dereference /etc/os-release /etc/os-release.kept; cp /etc/debian_version /etc/debian_version.kept")
    vm("sed -i 's/13/11/g; s/trixie/bullseye/g' /usr/lib/os-release; echo 11.9 > /etc/debian_version")
    try:
        assert "Debian 13" in refusal()
    finally:
        vm("cp /etc/os-release.kept /usr/lib/os-release; rm /etc/os-release.kept")
        vm("mv /etc/debian_version.kept /etc/debian_version")
