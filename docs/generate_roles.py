"""Write docs/roles/ from the roles' argument specs: one page a role, and an index.

usage: generate_roles.py [--check]     (--check writes nothing and fails if a page is out of date)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
ROLES = ROOT / "roles"
PAGES = ROOT / "docs" / "roles"
NOTE = "<!-- Generated from {source} by docs/generate_roles.py: change that, then run this. -->"

Spec = dict[str, Any]


def entry_points(role: Path) -> dict[str, Spec]:
    """The role's argument specs by entry point, `main` first."""
    specs: dict[str, Spec] = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    return dict(sorted(specs.items(), key=lambda entry: entry[0] != "main"))


def _type(option: Spec) -> str:
    kind = option.get("type", "str")
    if "elements" in option:
        kind += f" of {option['elements']}"
    if "choices" in option:
        kind += ": " + ", ".join(f"`{choice}`" for choice in option["choices"])
    return kind


def _default(option: Spec) -> str:
    if option.get("required"):
        return "required"
    if "default" not in option:
        return ""
    default = option["default"]
    return f"`{default}`" if isinstance(default, str) and default else f"`{json.dumps(default, ensure_ascii=False)}`"


def _sentences(text: str | list[str]) -> str:
    return " ".join([text] if isinstance(text, str) else text)


def _table(options: dict[str, Spec]) -> list[str]:
    rows = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, option in options.items():
        cells = [f"`{name}`", _type(option), _default(option), _sentences(option["description"])]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def page(role: Path) -> str:
    """The Markdown page of one role: what it does, then its variables (entry points share one table)."""
    specs = entry_points(role)
    lines = [NOTE.format(source=f"roles/{role.name}/meta/argument_specs.yml"), "", f"# {role.name}", ""]
    for name, spec in specs.items():
        prefix = "" if name == "main" else f"`tasks_from: {name}`: "
        lines += [f"{prefix}{spec['short_description']}.", ""]
        lines += [_sentences(spec["description"]), ""] if "description" in spec else []
    options = {name: option for spec in specs.values() for name, option in (spec.get("options") or {}).items()}
    lines += ["## Variables", "", *(_table(options) if options else ["None."])]
    return "\n".join(lines) + "\n"


def index(roles: list[Path]) -> str:
    """The Markdown page that lists the roles."""
    lines = [NOTE.format(source="roles/*/meta/argument_specs.yml"), "", "# Roles and their variables", ""]
    lines += [
        "Set a variable in the inventory's `group_vars/onebox/main.yml`. Preflight checks it before anything changes."
    ]
    lines += ["", "| role | what it does |", "|---|---|"]
    for role in roles:
        points = entry_points(role)
        told = [points["main"]] if "main" in points else points.values()
        summaries = "; ".join(spec["short_description"] for spec in told)
        lines.append(f"| [{role.name}]({role.name}.md) | {summaries} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """File name and text of every page."""
    roles = sorted(path.parent.parent for path in ROLES.glob("*/meta/argument_specs.yml"))
    return {"README.md": index(roles)} | {f"{role.name}.md": page(role) for role in roles}


def out_of_date(wanted: dict[str, str]) -> list[str]:
    """Names of pages that are missing, differ, or belong to no role any more."""
    found = {path.name: path.read_text() for path in PAGES.glob("*.md")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def main(argv: list[str] | None = None) -> int:
    """Write the pages, or only compare them; exit code 1 if a comparison fails."""
    parser = argparse.ArgumentParser(description="Write docs/roles/ from the roles' argument specs.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    check = parser.parse_args(argv).check
    wanted = pages()
    stale = out_of_date(wanted)
    if check and stale:
        print(f"docs/roles is out of date ({', '.join(stale)}): run docs/generate_roles.py", file=sys.stderr)
        return 1
    PAGES.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in wanted:
            (PAGES / name).write_text(wanted[name])
        else:
            (PAGES / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
