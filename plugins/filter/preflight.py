# SPDX-License-Identifier: MIT
"""What preflight finds wrong, as sentences: the thing, the value, what was expected, the next step."""

from __future__ import annotations

import difflib
import ipaddress
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What a build checks on the VM is foretold here; it needs the standard library alone.
sys.path.append(str(Path(__file__).resolve().parents[2] / "files" / "all-in-one"))

from modelbuild.room import memory_mb
from modelbuild.sandbox import unseen_below

Input = dict[str, Any]

# Distributions by their ID and VERSION_ID in os-release.
TESTED = {("debian", "13")}
SUPPORTED = {("debian", "13"), ("ubuntu", "24.04")}
# What the services take beside a build: with the demo's two models, of 470 MB each before INT8, 2.5 GB were measured.
SERVICES_BASE_MB = 1500
SERVICES = ("app", "worker", "postgres", "redis")
# Ports of the VM that the box publishes, and the least each may be: 0 publishes nothing.
PORTS = {"stack_port": 1, "stack_metrics_port": 0, "stack_worker_metrics_port": 0}
# Whole numbers that the app takes: those of files/all-in-one/app/settings.py.
RANGES = {
    "stack_rate_limit": (0, 1_000_000),
    "stack_public_rate_limit": (0, 1_000_000),
    "stack_trusted_proxies": (0, 10),
    "stack_query_wait_ms": (1, 600_000),
    "stack_bulk_wait_ms": (1, 600_000),
    "stack_max_body_bytes": (1024, 1 << 30),
    "stack_max_inputs": (1, 100_000),
    "stack_max_candidates": (1, 100_000),
    "stack_max_documents": (1, 100_000),
    "stack_max_text_characters": (1, 100_000_000),
    "stack_max_query_characters": (1, 1_000_000),
}
ARCHITECTURES = {"x86_64", "aarch64"}
# What the tests run with; another value is an alternative.
TESTED_CHOICES = {"docker_source": "debian", "model_builder_torch_source": "debian", "stack_image_source": "debian"}


def _whole(value: object) -> int | None:
    """`value` as a whole number; None where it is none. A number given by --extra-vars NAME=VALUE arrives as text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def _system(machine: dict[str, Any]) -> tuple[str, str]:
    return machine["distribution"], machine["distribution_version"]


def _system_name(machine: dict[str, Any]) -> str:
    return " ".join(_system(machine)).capitalize()


def _machine(given: Input) -> Iterator[str]:
    machine = given["machine"]
    system = _system(machine)
    if system not in SUPPORTED:
        yield (
            f"Operating system: {_system_name(machine)}; expected Debian 13 (tested) or Ubuntu 24.04 (untested)."
            " Use such a VM."
        )
    elif system[0] != "debian" and given["docker_source"] == "debian":
        yield (
            f"docker_source is debian, and this is {_system_name(machine)}; expected docker there, since its"
            " packages differ. Set docker_source: docker."
        )
    if machine["architecture"] not in ARCHITECTURES:
        yield (
            f"Architecture: {machine['architecture']}; expected one of {', '.join(sorted(ARCHITECTURES))}."
            " Use another VM type."
        )
    if machine["architecture"] == "x86_64" and "avx2" not in machine["cpu_flags"]:
        yield (
            "CPU: no AVX2; expected it, since INT8 inference needs it."
            " Use a VM type of the last ten years, or let the hypervisor pass the host's CPU flags."
        )
    wanted = _whole(given["preflight_min_memory_mb"])
    if wanted is not None and machine["memory_mb"] < wanted:
        yield (
            f"Memory: {machine['memory_mb']} MB; expected at least preflight_min_memory_mb = {wanted}. Use a larger VM."
        )


def _disk(given: Input) -> Iterator[str]:
    wanted = _whole(given["preflight_min_disk_gb"])
    if wanted is None or given["machine"]["deployed"]:
        return  # what a first deployment needs is there already
    for folder, disk in given["machine"]["disks"].items():
        free = disk["free"] / 1e9
        if free < wanted:
            yield (
                f"Disk: {free:.1f} GB free at {folder} (file system {disk['mount']}); expected at least"
                f" preflight_min_disk_gb = {wanted}. Enlarge the disk or free some space."
            )


def _listen(given: Input) -> Iterator[str]:
    try:
        ipaddress.ip_address(given["stack_listen"])
    except ValueError:
        yield (
            f"stack_listen is {given['stack_listen']!r}; expected an IP address of the VM."
            " Write 127.0.0.1 (reached through SSH), 0.0.0.0 (all), or one of its addresses."
        )


def _ports(given: Input) -> Iterator[str]:
    """Ports that the box publishes: numbers, each once, and free unless the box itself has them."""
    taken: dict[str, str] = {}
    if not given["machine"]["deployed"]:
        listening = given["machine"]["listening"]
        taken = {address.rsplit(":", 1)[-1]: f"something listens on {address} already" for address in listening}
    for name, least in PORTS.items():
        port = _whole(given[name])
        if port is None or not least <= port <= 65535:
            yield (
                f"{name} is {given[name]!r}; expected a port number from {least} to 65535."
                f" Write one that is free on the VM, such as 8080{'' if least else ', or 0 for none'}."
            )
        elif str(port) in taken:
            yield (
                f"{name} is {port}, and {taken[str(port)]}; expected a free port."
                f" Stop it, or set {name} to a free port."
            )
        elif port:
            taken[str(port)] = f"so is {name}"


def _ranges(given: Input) -> Iterator[str]:
    for name, (least, most) in RANGES.items():
        value = _whole(given["numbers"][name])
        if value is None or not least <= value <= most:
            yield f"{name} is {given['numbers'][name]!r}; expected a whole number from {least} to {most}. Write one."


def _models(given: Input) -> Iterator[str]:
    for variable, kind in (("models_embedding", "embedding"), ("models_reranker", "reranker")):
        profiles = {name: p for name, p in given["models_profiles"].items() if p.get("kind") == kind}
        name = given[variable]
        if isinstance(name, str) and name in profiles:
            yield from _model(variable, name, profiles, given)
            continue
        near = difflib.get_close_matches(str(name), profiles, n=1)
        other = given["models_profiles"].get(name, {}).get("kind") if isinstance(name, str) else None
        yield (
            f"{variable} is {name!r}{f', which is of the kind {other}' if other else ''}; expected one of"
            f" {', '.join(sorted(profiles))}. "
            + (
                f"Choose one of them ({near[0]} perhaps)."
                if near
                else "Choose one of them, or add a profile to models_extra_profiles."
            )
        )


def _pinned(profile: dict[str, Any]) -> bool:
    source = profile.get("source")
    return not isinstance(source, dict) or source.get("type") != "hub" or bool(source.get("revision"))


def _model(variable: str, name: str, profiles: dict[str, dict[str, Any]], given: Input) -> Iterator[str]:
    if not _pinned(profiles[name]):
        yield (
            f"{variable} is {name}, whose revision is not pinned; expected a commit hash."
            f" Run `ansible-playbook -i {given['inventory']} playbooks/pin.yml`, which asks the hub and writes it down."
        )
    accepted = given["models_accepted_licenses"]
    licence = profiles[name].get("licence", "unknown")
    if licence not in accepted:
        others = [n for n, p in sorted(profiles.items()) if p.get("licence") in accepted and _pinned(p)]
        yield (
            f"{variable} is {name}, whose licence {licence} is not in models_accepted_licenses (found"
            f" {', '.join(accepted) or 'none'}); expected it to be accepted by name."
            " Read the licence (CC-BY-NC forbids commercial use) and add it there"
            + (f", or choose {' or '.join(others)}." if others else ".")
        )


def _build(given: Input) -> Iterator[str]:
    """What building the larger of the two models takes beside the services; the build itself asks what is free."""
    chosen = [given["models_profiles"].get(str(given[name]), {}) for name in ("models_embedding", "models_reranker")]
    sizes = [_whole(profile.get("size_mb")) or 0 for profile in chosen]
    size, limit = max(sizes), _whole(given["models_build_memory_mb"])
    if not size or limit is None:
        return
    needed = memory_mb(size)
    limits = sum(_whole(given[f"stack_{service}_memory_mb"]) or 0 for service in SERVICES)
    services = min(limits, SERVICES_BASE_MB + sum(sizes))
    if limit < needed:
        yield (
            f"models_build_memory_mb is {limit}; expected at least {needed} for a model of {size} MB."
            " Raise it (and use a VM that has as much), or choose a smaller model."
        )
    elif given["machine"]["memory_mb"] < needed + services:
        yield (
            f"Memory: {given['machine']['memory_mb']} MB; expected at least {needed + services}, {needed} to build a"
            f" model of {size} MB and {services} for the services beside it."
            " Use a larger VM, or choose a smaller model."
        )


def _folders(given: Input) -> Iterator[str]:
    for variable in ("models_embedding", "models_reranker"):
        source = given["models_profiles"].get(str(given[variable]), {}).get("source")
        path = source.get("path") if isinstance(source, dict) else None
        hiding = unseen_below(Path(path)) if isinstance(path, str) else None
        if hiding:
            yield (
                f"{variable} is {given[variable]}, whose folder {path} lies below {hiding}, which builds do not see;"
                " expected a folder that the unprivileged build user can read. Put the model below /srv or /opt on"
                " the VM, and write that path in its profile."
            )


def _files(given: Input) -> Iterator[str]:
    paths = given["docker_extra_ca_certificates"]
    if not isinstance(paths, list):
        yield f"docker_extra_ca_certificates is {paths!r}; expected a list of files. Write [{paths}]."
        return
    for path in paths:
        if not Path(path).is_file():
            yield (
                f"docker_extra_ca_certificates names {path}; expected a file on the controller."
                " Correct the path, or take it out of the list."
            )


def preflight_problems(given: Input) -> list[str]:
    """All problems of `given` (fields: roles/preflight/vars/main.yml), a sentence or two each; empty if none."""
    problems = [
        f"Variable: {error}. Correct it in the inventory; docs/roles/ has each variable's type and choices."
        for error in given["spec_errors"]
    ]
    problems += given["models_problems"]
    problems += given["stack_api_keys_problems"]
    for check in (_machine, _disk, _listen, _ports, _ranges, _models, _build, _folders, _files):
        problems += check(given)
    return problems


def preflight_untested(given: Input) -> list[str]:
    """What would work by its design and no test runs on."""
    machine = given["machine"]
    notes = []
    if _system(machine) not in TESTED:
        notes.append(f"Untested: {_system_name(machine)} (tests run on Debian 13).")
    if machine["architecture"] != "x86_64":
        notes.append(f"Untested: architecture {machine['architecture']} (tests run on x86_64).")
    for name in (str(given["models_embedding"]), str(given["models_reranker"])):
        if code := given["models_profiles"].get(name, {}).get("remote_code"):
            notes.append(
                f"{name} runs code of the repository {code} on the VM while it is built, as its profile allows."
            )
    for variable, tested in TESTED_CHOICES.items():
        if given[variable] != tested:
            notes.append(f"Untested: {variable}: {given[variable]} (tests run with {tested}).")
    return notes


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"preflight_problems": preflight_problems, "preflight_untested": preflight_untested}
