"""The roles as data: what each declares, and which variables its files make and mention."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir())
MAKERS = ("register", "loop_var", "index_var")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.is_file() else None


def defaults(role: Path) -> dict[str, Any]:
    return load(role / "defaults" / "main.yml") or {}


def options(role: Path) -> dict[str, dict[str, Any]]:
    """The options of all entry points by name."""
    specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    return {name: option for spec in specs.values() for name, option in (spec.get("options") or {}).items()}


def internals(role: Path) -> set[str]:
    """Names in the role's vars."""
    return {name for path in (role / "vars").rglob("*.yml") for name in load(path) or {}}


def made(node: Any) -> Iterator[str]:
    """Names that tasks make: registered, set as facts, loop variables, vars of a task or play."""
    if isinstance(node, list):
        for item in node:
            yield from made(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in MAKERS and isinstance(value, str):
                yield value
            elif key in ("vars", "ansible.builtin.set_fact"):
                yield from value
            yield from made(value)


def task_files(role: Path) -> list[Path]:
    return sorted([*(role / "tasks").glob("*.yml"), *(role / "handlers").glob("*.yml")])


def mentioned(path: Path, prefix: str) -> set[str]:
    """Names in a file that begin with `prefix` or `__prefix`; no YAML anchors, attributes or parts of words."""
    return set(re.findall(rf"(?<![\w.\-&*])(?:__)?{re.escape(prefix)}_\w+", path.read_text()))
