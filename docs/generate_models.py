"""Writes the comparison of the catalogue's models into docs/models.md, between its two marks.

usage: python docs/generate_models.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CATALOGUE = ROOT / "roles/models/vars/main/catalogue.yml"
PAGE = ROOT / "docs/models.md"
START, END = "<!-- generated: python docs/generate_models.py -->", "<!-- end of generated -->"


def table(kind: str, catalogue: dict[str, dict[str, Any]]) -> list[str]:
    """The Markdown table of one kind's models."""
    of_kind = {name: profile for name, profile in catalogue.items() if profile["kind"] == kind}
    titles = ("name", "licence", "languages", "download", "tokens", "dimension", "route", "pinned")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, profile in of_kind.items():
        hub = profile["source"]["type"] == "hub"
        pinned = "made on the VM" if not hub else "yes" if profile["source"]["revision"] else "by `pin.yml`"
        cells = [
            f"`{name}`",
            profile["licence"],
            ", ".join(profile["languages"]),
            f"{profile['size_mb']} MB",
            str(profile["max_length"]),
            str(profile.get("dimension", "")),
            profile["route"],
            pinned,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def generated() -> str:
    """What belongs between the marks."""
    catalogue = yaml.safe_load(CATALOGUE.read_text())["models_catalogue"]
    lines = [
        "### Embeddings",
        "",
        *table("embedding", catalogue),
        "",
        "### Rerankers",
        "",
        *table("reranker", catalogue),
    ]
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its generated part as the catalogue has it now."""
    before, rest = text.split(START, 1)
    return f"{before}{START}\n\n{generated()}\n\n{END}{rest.split(END, 1)[1]}"


def main(argv: list[str]) -> int:
    """Write the page; with --check only say whether it is out of date."""
    text = PAGE.read_text()
    wanted = page(text)
    if argv == ["--check"]:
        return int(text != wanted)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
