"""What preflight says: every problem names the thing, the value found, what was expected and the next step."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from models import model_problems, model_profiles
from preflight import RANGES, preflight_problems, preflight_untested

GOOD: dict[str, Any] = {
    "machine": {
        "distribution": "debian",
        "distribution_version": "13",
        "architecture": "x86_64",
        "cpu_flags": ["fpu", "sse", "avx", "avx2"],
        "memory_mb": 8000,
        "disks": {folder: {"mount": "/", "free": 40e9} for folder in ("/var/lib/docker", "/opt/models")},
        "listening": ["0.0.0.0:22"],
        "deployed": False,
    },
    "spec_errors": [],
    "preflight_min_memory_mb": 3500,
    "preflight_min_disk_gb": 10,
    "docker_source": "debian",
    "docker_extra_ca_certificates": [],
    "model_builder_torch_source": "debian",
    "models_embedding": "small",
    "models_reranker": "ranker",
    "models_profiles": {
        "small": {"kind": "embedding", "licence": "MIT", "source": {"type": "hub", "revision": "ab12"}},
        "floating": {"kind": "embedding", "licence": "MIT", "source": {"type": "hub", "revision": None}},
        "ranker": {"kind": "reranker", "licence": "MIT", "source": {"type": "demo"}},
        "closed": {"kind": "reranker", "licence": "CC-BY-NC-4.0", "source": {"type": "hub", "revision": "cd34"}},
        "drifting": {"kind": "reranker", "licence": "MIT", "source": {"type": "hub", "revision": None}},
    },
    "models_problems": [],
    "models_accepted_licenses": ["MIT", "Apache-2.0"],
    "models_build_memory_mb": 6000,
    "inventory": "inventory/mine",
    "stack_listen": "127.0.0.1",
    "stack_port": 8080,
    "stack_metrics_port": 0,
    "stack_worker_metrics_port": 0,
    "stack_app_memory_mb": 3000,
    "stack_worker_memory_mb": 2000,
    "stack_postgres_memory_mb": 1024,
    "stack_redis_memory_mb": 256,
    "numbers": {name: str(least) for name, (least, _) in RANGES.items()},
    "stack_api_keys_problems": [],
    "stack_image_source": "debian",
}


BIG = {name: {**profile, "size_mb": 2270} for name, profile in GOOD["models_profiles"].items()}


def given(**changes: Any) -> dict[str, Any]:
    """A good VM with `changes`: a variable by its name, what the machine is as machine__NAME."""
    changed = deepcopy(GOOD)
    for name, value in changes.items():
        if name.startswith("machine__"):
            changed["machine"][name.removeprefix("machine__")] = value
        else:
            changed[name] = value
    return changed


def problem(**changes: Any) -> str:
    """The one problem of a good VM with `changes`."""
    problems = preflight_problems(given(**changes))
    assert len(problems) == 1, problems
    return problems[0]


def test_a_good_vm_has_no_problems_and_nothing_untested() -> None:
    assert preflight_problems(GOOD) == []
    assert preflight_untested(GOOD) == []


@pytest.mark.parametrize(
    "changes,thing,found,expected,next_step",
    [
        (
            {"machine__distribution_version": "11"},
            "Operating system",
            "Debian 11",
            "Debian 13 (tested) or Ubuntu 24.04 (untested)",
            "Use such a VM",
        ),
        (
            {"machine__distribution": "ubuntu", "machine__distribution_version": "24.04"},
            "docker_source",
            "is debian",
            "expected docker",
            "Set docker_source: docker",
        ),
        (
            {"machine__architecture": "riscv64"},
            "Architecture",
            "riscv64",
            "expected one of aarch64, x86_64",
            "Use another VM type",
        ),
        ({"machine__cpu_flags": ["fpu", "sse", "avx"]}, "CPU", "no AVX2", "expected it", "Use a VM type"),
        ({"machine__memory_mb": 2000}, "Memory", "2000 MB", "preflight_min_memory_mb = 3500", "Use a larger VM"),
        (
            {"machine__disks": {"/opt/models": {"mount": "/opt", "free": 3.5e9}}},
            "Disk",
            "3.5 GB free at /opt/models (file system /opt)",
            "preflight_min_disk_gb = 10",
            "Enlarge the disk",
        ),
        ({"stack_listen": "everywhere"}, "stack_listen", "'everywhere'", "expected an IP address", "Write 127.0.0.1"),
        ({"stack_port": "eighty"}, "stack_port", "'eighty'", "from 1 to 65535", "Write one that is free"),
        ({"stack_port": 70000}, "stack_port", "70000", "from 1 to 65535", "Write one that is free"),
        ({"stack_port": 22}, "stack_port is 22", "0.0.0.0:22", "expected a free port", "set stack_port"),
        ({"stack_metrics_port": -1}, "stack_metrics_port", "-1", "from 0 to 65535", "or 0 for none"),
        ({"stack_worker_metrics_port": 22}, "stack_worker_metrics_port is 22", "0.0.0.0:22", "free port", "Stop it"),
        (
            {"stack_metrics_port": "8080"},
            "stack_metrics_port is 8080",
            "stack_port",
            "free port",
            "set stack_metrics_port",
        ),
        (
            {"models_embedding": "smal"},
            "models_embedding",
            "'smal'",
            "expected one of floating, small",
            "Choose one of them (small perhaps).",
        ),
        (
            {"models_build_memory_mb": 2000, "models_profiles": BIG},
            "models_build_memory_mb",
            "is 2000",
            "expected at least 10180 for a model of 2270 MB",
            "choose a smaller model",
        ),
        (
            {"models_build_memory_mb": 20000, "models_profiles": BIG},
            "Memory",
            "8000 MB",
            "expected at least 16220, 10180 to build a model of 2270 MB and 6040 for the services beside it",
            "Use a larger VM",
        ),
        (
            {
                "models_build_memory_mb": 20000,
                "models_profiles": BIG,
                "machine__memory_mb": 13000,
                "stack_app_memory_mb": 1000,
            },
            "Memory",
            "13000 MB",
            "expected at least 14460, 10180 to build a model of 2270 MB and 4280 for the services beside it",
            "Use a larger VM",
        ),
        (
            {
                "models_embedding": "own",
                "models_profiles": {
                    **GOOD["models_profiles"],
                    "own": {"kind": "embedding", "licence": "MIT", "source": {"type": "folder", "path": "/root/own"}},
                },
            },
            "models_embedding is own",
            "/root/own lies below /root",
            "expected a folder that the unprivileged build user can read",
            "below /srv or /opt",
        ),
        ({"models_embedding": "ranker"}, "models_embedding", "'ranker'", "of the kind reranker", "floating, small"),
        (
            {"models_reranker": ["ranker"]},
            "models_reranker",
            "['ranker']",
            "closed, drifting, ranker",
            "Choose one of them",
        ),
        (
            {"models_embedding": "floating"},
            "models_embedding is floating",
            "revision is not pinned",
            "expected a commit hash",
            "ansible-playbook -i inventory/mine playbooks/pin.yml",
        ),
        (
            {"models_reranker": "closed"},
            "models_reranker is closed",
            "CC-BY-NC-4.0",
            "models_accepted_licenses",
            "add it there, or choose ranker.",
        ),
        (
            {"docker_extra_ca_certificates": ["/nowhere/ca.crt"]},
            "docker_extra_ca_certificates",
            "/nowhere/ca.crt",
            "expected a file on the controller",
            "Correct the path",
        ),
        (
            {"docker_extra_ca_certificates": "/etc/ca.crt"},
            "docker_extra_ca_certificates",
            "'/etc/ca.crt'",
            "expected a list",
            "Write [/etc/ca.crt]",
        ),
        (
            {"spec_errors": ["value of docker_source must be one of: debian, docker, got: snap"]},
            "docker_source",
            "got: snap",
            "must be one of: debian, docker",
            "Correct it in the inventory",
        ),
    ],
)
def test_a_problem_names_thing_value_expectation_and_next_step(
    changes: dict[str, Any], thing: str, found: str, expected: str, next_step: str
) -> None:
    said = problem(**changes)
    for part in (thing, found, expected, next_step):
        assert part in said
    assert said.endswith(".")


def test_several_problems_come_in_one_list() -> None:
    problems = preflight_problems(
        given(machine__memory_mb=1, stack_listen="x", models_embedding="y", stack_port=0, spec_errors=["argument z"])
    )
    assert len(problems) == 5
    for name in ("Memory", "stack_listen", "models_embedding", "stack_port", "argument z"):
        assert sum(name in said for said in problems) == 1


def test_a_figure_of_the_wrong_type_hides_no_other_problem() -> None:
    said = problem(preflight_min_memory_mb="lots", preflight_min_disk_gb="more", spec_errors=["argument lots"])
    assert "argument lots" in said


def test_a_number_that_extra_vars_brought_as_text_is_a_number() -> None:
    assert preflight_problems(given(stack_port="9090", preflight_min_memory_mb="3500")) == []


def test_what_the_box_itself_takes_is_no_problem() -> None:
    full = {"/opt/models": {"mount": "/", "free": 1e9}}
    box = given(machine__listening=["127.0.0.1:8080"], machine__disks=full, machine__deployed=True)
    assert preflight_problems(box) == []


def test_another_port_that_ends_alike_is_free() -> None:
    assert preflight_problems(given(machine__listening=["[::1]:18080"])) == []


def test_arm_needs_no_avx2_and_is_called_untested() -> None:
    arm = given(machine__architecture="aarch64", machine__cpu_flags=["fp", "asimd", "asimddp"])
    assert preflight_problems(arm) == []
    assert preflight_untested(arm) == ["Untested: architecture aarch64 (tests run on x86_64)."]


def test_every_alternative_without_a_test_is_called_untested() -> None:
    notes = preflight_untested(
        given(
            machine__distribution="ubuntu",
            machine__distribution_version="24.04",
            docker_source="docker",
            model_builder_torch_source="index",
            stack_image_source="registry",
        )
    )
    for name in ("Ubuntu 24.04", "docker_source: docker", "model_builder_torch_source: index", "registry"):
        assert any(name in note for note in notes)


OWN: dict[str, Any] = {
    "kind": "reranker",
    "source": {"type": "hub", "repository": "acme/ranker", "revision": "ab" * 20},
    "route": "transformers",
    "max_length": 512,
    "licence": "MIT",
}
PIN: dict[str, Any] = {"revision": "ab" * 20, "files": {"model.safetensors": "cd" * 32}}


def with_models(extra: Any = None, pins: Any = None, thresholds: Any = None, **changes: Any) -> list[str]:
    """The problems of a good VM whose operator wrote these, put together as roles/preflight/vars/main.yml does."""
    written = [{} if value is None else value for value in (extra, pins, thresholds)]
    profiles = model_profiles(GOOD["models_profiles"], written[0], written[1])
    return preflight_problems(given(models_profiles=profiles, models_problems=model_problems(*written), **changes))


def test_good_models_of_ones_own_are_no_problem() -> None:
    thresholds = {"min_cosine": 0.9, "reranker": {"max_drift": 0.2}}
    pins = {"drifting": PIN, "gone from the catalogue": PIN}
    assert with_models({"mine": OWN}, pins, thresholds, models_reranker="mine") == []
    assert with_models({}, pins, models_reranker="drifting") == []


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ({"extra": {"mine": "text"}}, ["models_extra_profiles, mine: it is 'text'", "expected the fields"]),
        ({"extra": ["mine"]}, ["models_extra_profiles is ['mine']", "expected entries by name"]),
        ({"extra": {"mine": {**OWN, "source": {"type": ["hub"]}}}}, ["mine: source is", "one of hub, folder, demo"]),
        ({"extra": {"mine": {**OWN, "source": "acme/ranker"}}}, ["mine: source is 'acme/ranker'", "an object"]),
        ({"extra": {"mine": {**OWN, "kind": ["reranker"]}}}, ["mine: kind is ['reranker']"]),
        ({"extra": {"mine": {**OWN, "files": {1: 2}}}}, ["mine: files is {1: 2}", "sha256"]),
        ({"pins": ["small"]}, ["models_pins is ['small']", "expected entries by name"]),
        ({"pins": {"small": "ab" * 20}}, ["models_pins, small: it is 'abab", "expected the fields revision and files"]),
        ({"pins": {"small": {"files": {}}}}, ["models_pins, small: revision is None", "commit hash", "pin.yml"]),
        ({"pins": {"small": {**PIN, "revision": "main"}}}, ["revision is 'main'", "40 hexadecimal digits"]),
        ({"pins": {"small": {**PIN, "files": {"model.onnx": "short"}}}}, ["files is {'model.onnx': 'short'}"]),
        ({"pins": {"small": {**PIN, "commit": 1}}}, ["models_pins, small: commit is not a field of a pin"]),
        (
            {"thresholds": {"min_cosin": 0.9}},
            ["models_gate_thresholds: ", "min_cosin is unknown, did you mean min_cos"],
        ),
        ({"thresholds": {"min_cosine": "high"}}, ["min_cosine is 'high', expected a number"]),
        ({"thresholds": {"reranker": {"max_drift": -1}}}, ["max_drift is -1"]),
        ({"thresholds": {"reranker": 3}}, ["reranker is 3", "expected an object"]),
        ({"thresholds": {7: 3}}, ["7 is unknown"]),
        ({"thresholds": [0.9]}, ["models_gate_thresholds is [0.9]", "expected entries by name"]),
    ],
)
def test_models_of_ones_own_that_are_wrong_are_one_sentence_among_the_others(
    written: dict[str, Any], parts: list[str]
) -> None:
    said = with_models(**written, stack_port=0)
    assert len(said) == 2, said
    for part in parts:
        assert part in said[0]
    assert said[0].endswith(".")


def test_a_profile_that_is_wrong_and_chosen_hides_nothing() -> None:
    said = with_models({"mine": {"kind": "reranker", "source": "text"}}, models_reranker="mine", stack_port=0)
    assert any("mine: source is 'text'" in one for one in said)
    assert any("stack_port" in one for one in said)


def test_without_an_alternative_the_licence_must_be_accepted() -> None:
    profiles = {name: profile for name, profile in GOOD["models_profiles"].items() if name != "ranker"}
    said = problem(models_reranker="closed", models_profiles=profiles)
    assert said.endswith("add it there.")


def test_the_demo_builds_and_serves_on_the_six_gigabytes_that_the_readme_asks_for() -> None:
    profiles = {name: {**profile, "size_mb": 470} for name, profile in GOOD["models_profiles"].items()}
    assert preflight_problems(given(models_profiles=profiles, machine__memory_mb=5700)) == []


@pytest.mark.parametrize("value", [-1, "many", True, 10**10])
@pytest.mark.parametrize("name", RANGES)
def test_a_number_out_of_range_is_named(name: str, value: object) -> None:
    numbers = GOOD["numbers"] | {name: value}
    least, most = RANGES[name]
    assert problem(numbers=numbers) == (
        f"{name} is {value!r}; expected a whole number from {least} to {most}. Write one."
    )
