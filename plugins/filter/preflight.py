# SPDX-License-Identifier: MIT
"""What preflight finds wrong, as sentences: the thing, the value, what was expected, the next step."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Input = dict[str, Any]

TESTED = {("Debian", "13")}
SUPPORTED = {("Debian", "13"), ("Ubuntu", "24.04")}
ARCHITECTURES = {"x86_64", "aarch64"}


def _machine(given: Input) -> Iterator[str]:
    facts = given["facts"]
    system = (facts["distribution"], facts["distribution_version"].split("." if facts["distribution"] == "Debian" else " ")[0])
    if system not in SUPPORTED:
        yield f"Operating system: {' '.join(system)}; expected Debian 13 (tested) or Ubuntu 24.04 (untested). Use such a VM."
    elif system[0] != "Debian" and given["docker_source"] == "debian":
        yield f"docker_source is debian, and this is {' '.join(system)}, whose packages differ. Set docker_source: docker."
    if facts["architecture"] not in ARCHITECTURES:
        yield f"Architecture: {facts['architecture']}; expected one of {', '.join(sorted(ARCHITECTURES))}. Use another VM type."
    flags = next((set(line.split()) for line in given["probe"] if line.startswith(("flags", "Features"))), set())
    if facts["architecture"] == "x86_64" and "avx2" not in flags:
        yield "CPU: no AVX2, which INT8 inference needs. Use a VM type of the last ten years, or let the hypervisor pass the host's CPU flags."
    if facts["memtotal_mb"] < given["preflight_min_memory_mb"]:
        yield (
            f"Memory: {facts['memtotal_mb']} MB; expected at least preflight_min_memory_mb = {given['preflight_min_memory_mb']}."
            " Use a larger VM."
        )


def _mount(facts: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The mount that `path` lies on: the longest mount point that is a prefix of it."""
    candidates = [m for m in facts["mounts"] if path == m["mount"] or path.startswith(m["mount"].rstrip("/") + "/")]
    return max(candidates, key=lambda mount: len(mount["mount"]), default=None)


def _disk(given: Input) -> Iterator[str]:
    if "deployed" in given["probe"]:
        return  # what a first deployment needs is there already
    for path in ("/var/lib/docker", "/opt/models"):
        mount = _mount(given["facts"], path)
        free = mount["size_available"] / 1e9 if mount and mount.get("size_available") is not None else None
        if free is not None and free < given["preflight_min_disk_gb"]:
            yield (
                f"Disk: {free:.1f} GB free at {path} (file system {mount['mount']}); expected at least"
                f" preflight_min_disk_gb = {given['preflight_min_disk_gb']}. Enlarge the disk or free some space."
            )


def _ports(given: Input) -> Iterator[str]:
    if "deployed" in given["probe"]:
        return  # taken by the box itself
    port = given["stack_port"]
    for line in given["probe"]:
        fields = line.split()
        if fields[:1] == ["LISTEN"] and fields[3].rsplit(":", 1)[-1] == str(port):
            yield f"stack_port is {port}, and something listens on {fields[3]} already. Stop it, or set stack_port to a free port."
            return


def _listen(given: Input) -> Iterator[str]:
    try:
        ipaddress.ip_address(given["stack_listen"])
    except ValueError:
        yield f"stack_listen is {given['stack_listen']!r}; expected an IP address of the VM, 127.0.0.1 (reached through SSH) or 0.0.0.0 (all)."
    if not isinstance(given["stack_port"], int) or not 1 <= given["stack_port"] <= 65535:
        yield f"stack_port is {given['stack_port']!r}; expected a port number from 1 to 65535."


def _models(given: Input) -> Iterator[str]:
    profiles = given["models_profiles"]
    for variable, kind in (("models_embedding", "embedding"), ("models_reranker", "reranker")):
        name = given[variable]
        names = sorted(n for n, profile in profiles.items() if profile.get("kind") == kind)
        if name not in profiles or profiles[name].get("kind") != kind:
            yield (
                f"{variable} is {name!r}; expected one of {', '.join(names)}, or a model whose profile is given in models_extra_profiles."
            )
            continue
        profile = profiles[name]
        source = profile.get("source") or {}
        if source.get("type") == "hub" and not source.get("revision"):
            yield f"{variable} is {name}, whose revision is not pinned. Pin a commit hash with a profile in models_extra_profiles."
        licence = profile.get("licence", "unknown")
        if licence not in given["models_accepted_licenses"]:
            permissive = [n for n in names if profiles[n].get("licence") in given["models_accepted_licenses"]]
            yield (
                f"{variable} is {name}, whose licence {licence} is not in models_accepted_licenses."
                f" Read the licence (CC-BY-NC forbids commercial use) and add it there, or choose {' or '.join(permissive)}."
            )


def _files(given: Input) -> Iterator[str]:
    for path in given["docker_extra_ca_certificates"]:
        if not Path(path).is_file():
            yield f"docker_extra_ca_certificates names {path}, which is not a file on the controller."


def preflight_problems(given: Input) -> list[str]:
    """All problems of `given` (roles/preflight/vars/main.yml names its fields), one sentence or two each; empty if there are none."""
    problems = [f"Variable: {error}." for error in given["spec_errors"]]
    for check in (_machine, _disk, _listen, _models, _files):
        problems += check(given)
    if not any(problem.startswith("stack_port") for problem in problems):
        problems += _ports(given)
    return problems


def preflight_untested(given: Input) -> list[str]:
    """What would work by its design and no test runs on."""
    facts = given["facts"]
    notes = []
    if (facts["distribution"], str(facts["distribution_major_version"])) not in TESTED:
        notes.append(f"Untested: {facts['distribution']} {facts['distribution_version']} (tests run on Debian 13).")
    if facts["architecture"] != "x86_64":
        notes.append(f"Untested: architecture {facts['architecture']} (tests run on x86_64).")
    for variable, tested in (("docker_source", "debian"), ("model_builder_torch_source", "debian"), ("stack_image_source", "debian")):
        if given[variable] != tested:
            notes.append(f"Untested: {variable}: {given[variable]} (tests run with {tested}).")
    return notes


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"preflight_problems": preflight_problems, "preflight_untested": preflight_untested}
