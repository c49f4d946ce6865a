"""What is asked for, and the ID that follows from it: the same request is the same release."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError
from modelbuild.profile import Profile
from modelbuild.thresholds import CHANNELS, LADDER, POLICY_VERSION, thresholds_for
from pipeline.cpu import Cpu, detect

HERE = Path(__file__).parent
LOCK = HERE / "requirements.txt"
GATE_TEXT = HERE / "faq" / "gate.jsonl"
# Held out: written for the last look alone. Nothing is trained on it, and no sensitivity is measured with it.
PROOF_TEXT = HERE / "faq" / "proof.jsonl"
# What a demo builder makes depends on: its code, its packages, and for the reranker the text it learns from.
DEMO_CODE = ("demo/*.py", "demo/packages.txt")
DEMO_FILES = {"e5": DEMO_CODE, "reranker": (*DEMO_CODE, "faq/train.jsonl")}
SLUG_LENGTH = 60


@dataclass(frozen=True)
class Request:
    """`content` is everything a release depends on; `id` is its name; `fingerprint` pins the source's content."""

    profile: Profile
    cpu: Cpu
    thresholds: dict[str, float]
    content: dict[str, Any]
    sensitivity_budget: float
    keep_float: bool

    @property
    def fingerprint(self) -> str:
        return str(self.content["source"])

    @property
    def id(self) -> str:
        return f"{slug(self.profile.name)}-{digest(self.content)[:12]}"


def make_request(
    profile: Profile,
    overrides: dict[str, Any],
    cpu: Cpu | None = None,
    *,
    sensitivity_budget: float = 120.0,
    keep_float: bool = False,
) -> Request:
    """Request for a profile on this machine (or `cpu`). Tool versions are those locked here, never those installed.

    `sensitivity_budget`: seconds for the search of products to leave in float.
    """
    cpu = cpu or detect()
    thresholds = thresholds_for(profile.kind, overrides)
    content = {
        "profile": profile.raw,
        "source": source_fingerprint(profile),
        "tools": file_sha256(LOCK),
        "cpu": cpu.name,
        "thresholds": thresholds,
        "texts": [file_sha256(GATE_TEXT), file_sha256(PROOF_TEXT)],
        "policy": {"version": POLICY_VERSION, "ladder": LADDER, "channels": CHANNELS},
        "sensitivity_budget": sensitivity_budget,
        "keep_float": keep_float,
    }
    return Request(profile, cpu, thresholds, content, sensitivity_budget, keep_float)


def source_fingerprint(profile: Profile) -> str:
    """What the source's name alone does not pin: a folder's content, or the demo builder's code and text."""
    if profile.source["type"] == "folder":
        return folder_sha256(Path(profile.source["path"]))
    if profile.source["type"] == "demo":
        files = sorted(path for pattern in DEMO_FILES[profile.source["builder"]] for path in HERE.glob(pattern))
        return digest({str(path.relative_to(HERE)): file_sha256(path) for path in files})
    return profile.source["revision"]


def folder_sha256(folder: Path) -> str:
    """Digest of the names and contents below a folder, hidden files aside."""
    if not folder.is_dir():
        raise BuildError(f"The model folder {folder} does not exist on this machine. Put the model there first.")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not is_hidden(path, folder))
    return digest({str(path.relative_to(folder)): file_sha256(path) for path in files})


def is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(content: Any) -> str:
    """sha256 of the canonical JSON: keys sorted, no spaces, UTF-8."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def slug(name: str) -> str:
    """A file name: lower case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:SLUG_LENGTH].rstrip("-") or "model"
