"""Defaults, argument specs and tasks of each role speak of the same variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import keys
import preflight
from roles import ROLES, ROOT, defaults, internals, load, made, mentioned, options, task_files

each_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)

# Defaults that depend on the host, so that a specification can only describe them.
EXPRESSIONS = {"bench_results", "payload_source", "vm_name", "vm_user", "vm_ssh_port", "vm_state_dir"}


def is_expression(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


def known() -> set[str]:
    """Every variable that a role or playbook makes, and what plugins and playbooks are called."""
    names = {path.stem for folder in ("plugins/modules", "playbooks") for path in (ROOT / folder).iterdir()}
    names |= set(preflight.FilterModule().filters()) | set(keys.FilterModule().filters())
    # What the filters take: one dictionary, whose fields are named like variables.
    names |= set(load(ROOT / "roles/preflight/vars/main.yml")["__preflight_input"])
    for role in ROLES:
        names |= set(defaults(role)) | set(options(role)) | internals(role)
        for path in task_files(role):
            names |= set(made(load(path)))
    for folder in ("playbooks", "molecule"):
        for path in (ROOT / folder).rglob("*.yml"):
            names |= set(made(load(path)))
    return names


def readers() -> list[Path]:
    """The files in which the roles' variables are read."""
    files = [path for role in ROLES for path in (*task_files(role), *(role / "vars").rglob("*.yml"))]
    return [*files, *(ROOT / "templates").glob("*.j2")]


@each_role
def test_every_role_has_a_specification_with_a_summary(role: Path) -> None:
    specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    assert all(spec["short_description"] for spec in specs.values())


@each_role
def test_defaults_and_specification_name_the_same_variables(role: Path) -> None:
    optional = {name for name, option in options(role).items() if not option.get("required")}
    assert set(defaults(role)) == optional


@each_role
def test_defaults_and_specification_have_the_same_values(role: Path) -> None:
    specified = {name: option.get("default") for name, option in options(role).items() if name not in EXPRESSIONS}
    written = {name: value for name, value in defaults(role).items() if name not in EXPRESSIONS}
    for name, value in written.items():
        assert (name, specified[name], type(specified[name])) == (name, value, type(value))


def test_only_the_named_defaults_are_expressions() -> None:
    found = {name for role in ROLES for name, value in defaults(role).items() if is_expression(value)}
    assert found == EXPRESSIONS


@each_role
def test_a_required_variable_has_no_default(role: Path) -> None:
    required = {name: option for name, option in options(role).items() if option.get("required")}
    assert not set(required) & set(defaults(role))
    assert not [name for name, option in required.items() if "default" in option]


@each_role
def test_every_variable_is_described_and_typed(role: Path) -> None:
    for name, option in options(role).items():
        assert str(option.get("description", "")).endswith("."), f"{name} has no description that ends with a full stop"
        assert "type" in option, f"{name} has no type"
        assert option["type"] != "list" or "elements" in option, f"{name} does not say what its elements are"


@each_role
def test_every_variable_carries_its_roles_name(role: Path) -> None:
    for name in [*defaults(role), *options(role)]:
        assert name.startswith(f"{role.name}_")


@each_role
def test_every_variable_is_used(role: Path) -> None:
    used = {name for path in readers() for name in mentioned(path, role.name)}
    assert set(options(role)) <= used


@pytest.mark.parametrize("folder", ["roles", "playbooks", "templates", "inventory", "molecule"])
def test_every_variable_that_is_read_exists(folder: str) -> None:
    names = known()
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix not in (".yml", ".j2"):
            continue
        for role in ROLES:
            unknown = mentioned(path, role.name) - names
            assert not unknown, f"{path.relative_to(ROOT)} reads {', '.join(sorted(unknown))}, which nothing makes"


@each_role
def test_internals_stay_inside_their_role(role: Path) -> None:
    for other in ROLES:
        if other == role:
            continue
        for path in [*task_files(other), *(other / "vars").rglob("*.yml")]:
            foreign = {name for name in mentioned(path, role.name) if name.startswith("__")}
            assert not foreign, f"{path.relative_to(ROOT)} reads {', '.join(sorted(foreign))} of the role {role.name}"
