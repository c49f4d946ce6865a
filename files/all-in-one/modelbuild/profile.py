"""The description of one model, validated field by field."""

import difflib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError

KINDS = ("embedding", "reranker")
ROUTES = ("sentence-transformers", "transformers", "prebuilt")
POOLINGS = ("mean", "cls")
INPUT_TYPES = ("query", "passage")
SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
SOURCE_FIELDS = {"hub": ("repository", "revision"), "folder": ("path",), "demo": ("builder",)}
DEMO_BUILDERS = {"e5": "embedding", "reranker": "reranker"}
EMBEDDING_ONLY = ("pooling", "normalize", "prefixes", "default_input_type", "dimension")


@dataclass(frozen=True)
class Profile:
    """One model. `raw` is the profile as it was given: it is what the request's digest covers, `basis` aside.

    `file` is the ONNX file of a prebuilt route, relative to the snapshot. `remote_code` must repeat the repository's
    name to let code from there run. `size_mb` is the size of the download. `files` are sha256 by name, which
    are checked after it. `basis` says where revision, licence and hashes were read.
    """

    name: str
    kind: str
    source: dict[str, str]
    route: str
    max_length: int
    licence: str
    pooling: str = "mean"
    normalize: bool = True
    prefixes: dict[str, str] = field(default_factory=dict)
    default_input_type: str | None = None
    dimension: int | None = None
    activation: str = "sigmoid"
    languages: tuple[str, ...] = ()
    size_mb: int | None = None
    file: str = "onnx/model.onnx"
    remote_code: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    basis: str = ""
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def trusts_code(self) -> bool:
        return self.remote_code is not None


FIELDS = tuple(name for name in Profile.__dataclass_fields__ if name != "raw")


def read_profile(path: Path) -> Profile:
    """Profile of a JSON file, or of standard input for `-`; BuildError names every field that is wrong."""
    return parse_profile(_read(path), str(path))


def read_profiles(path: Path) -> list[Profile]:
    """The same of a file that holds a list of profiles, or one."""
    content = _read(path)
    return [parse_profile(entry, str(path)) for entry in (content if isinstance(content, list) else [content])]


def _read(path: Path) -> Any:
    try:
        return json.loads(sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BuildError(f"The profile {path} cannot be read: {error.strerror}. Check the path.") from error
    except ValueError as error:
        raise BuildError(f"The profile {path} is not JSON: {error}.") from error


def parse_profile(content: Any, origin: str = "profile") -> Profile:
    """Profile of a decoded object; BuildError lists all its problems in one message."""
    if not isinstance(content, Mapping):
        raise BuildError(f"{origin}: holds a {type(content).__name__} instead of an object with a profile's fields.")
    problems = profile_problems(content)
    if problems:
        raise BuildError(f"{origin}: " + " ".join(problems))
    given = {key: value for key, value in content.items() if value is not None}
    if "languages" in given:
        given["languages"] = tuple(given["languages"])
    return Profile(**given, raw={key: value for key, value in content.items() if key != "basis"})


def profile_problems(profile: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a profile, a sentence each."""
    problems = _unknown_fields(profile) + _missing_fields(profile)
    checks = {
        "name": _text,
        "licence": _text,
        "kind": _one_of(KINDS),
        "route": _one_of(ROUTES),
        "pooling": _one_of(POOLINGS),
        "activation": _one_of(("sigmoid",)),
        "default_input_type": _one_of(INPUT_TYPES),
        "max_length": _whole_number(8, 32768),
        "dimension": _whole_number(1, 16384),
        "size_mb": _whole_number(1, 1_000_000),
        "normalize": _boolean,
        "source": _source,
        "prefixes": _prefixes,
        "languages": _texts,
        "file": _relative_file,
        "files": hashes_problem,
        "basis": _text,
    }
    for name, check in checks.items():
        if profile.get(name) is not None and (expected := check(profile[name])):
            problems.append(f"{name} is {profile[name]!r}, expected {expected}.")
    return problems or _contradictions(profile)


def _unknown_fields(profile: Mapping[str, Any]) -> list[str]:
    problems = []
    for name in profile:
        if name not in FIELDS:
            near = difflib.get_close_matches(str(name), FIELDS, n=1)
            problems.append(f"{name} is not a field of a profile{f', did you mean {near[0]}' if near else ''}.")
    return problems


def _missing_fields(profile: Mapping[str, Any]) -> list[str]:
    required = ["name", "kind", "source", "route", "max_length", "licence"]
    if profile.get("kind") == "embedding":
        required.append("dimension")
    return [f"{name} is missing." for name in required if profile.get(name) is None]


def _contradictions(profile: Mapping[str, Any]) -> list[str]:
    """Fields that are right by themselves and wrong together."""
    problems = []
    kind, source = profile["kind"], profile["source"]
    if kind == "reranker":
        problems += [f"{name} has no meaning for a reranker." for name in EMBEDDING_ONLY if profile.get(name)]
        if profile["route"] == "sentence-transformers":
            problems.append("route is 'sentence-transformers', expected 'transformers' or 'prebuilt' for a reranker.")
    if source["type"] == "demo" and DEMO_BUILDERS[source["builder"]] != kind:
        problems.append(f"kind is {kind!r}, but the demo builder {source['builder']!r} makes another kind.")
    wanted = profile.get("default_input_type")
    if wanted and wanted not in (profile.get("prefixes") or {}):
        problems.append(f"default_input_type is {wanted!r}, which prefixes does not have.")
    if profile.get("remote_code") not in (None, source.get("repository")):
        problems.append(
            f"remote_code is {profile['remote_code']!r}, expected the repository's name {source.get('repository')!r}: "
            "it allows that repository's code to run on this machine."
        )
    return problems


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "some text"


def _texts(value: Any) -> str | None:
    return None if isinstance(value, list) and not any(map(_text, value)) else "a list of texts"


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _one_of(allowed: tuple[str, ...]) -> Any:
    return lambda value: None if value in allowed else f"one of {', '.join(allowed)}"


def _whole_number(least: int, most: int) -> Any:
    def check(value: Any) -> str | None:
        right = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        return None if right else f"a whole number from {least} to {most}"

    return check


def _prefixes(value: Any) -> str | None:
    right = (
        isinstance(value, dict) and set(value) <= set(INPUT_TYPES) and all(isinstance(v, str) for v in value.values())
    )
    return None if right else "texts for query and passage"


def _relative_file(value: Any) -> str | None:
    right = isinstance(value, str) and value.endswith(".onnx") and not value.startswith("/") and ".." not in value
    return None if right else "an .onnx file's path inside the snapshot"


def hashes_problem(value: Any) -> str | None:
    """What was expected instead, if `value` is not the hashes of files by their names."""
    right = isinstance(value, dict) and all(
        isinstance(name, str) and not name.startswith("/") and ".." not in name and SHA256.fullmatch(str(sha256))
        for name, sha256 in value.items()
    )
    return None if right else "relative file names with their sha256 (64 hexadecimal digits)"


def _source(value: Any) -> str | None:
    if not isinstance(value, dict) or value.get("type") not in tuple(SOURCE_FIELDS):  # may be of any type
        return f"an object whose type is one of {', '.join(SOURCE_FIELDS)}"
    needed = SOURCE_FIELDS[value["type"]]
    if value["type"] == "hub" and set(value) == {"type", *needed} and value["revision"] is None:
        return "a pinned revision: run `ansible-playbook -i INVENTORY playbooks/pin.yml`, or write the commit hash"
    if set(value) != {"type", *needed} or any(_text(value[name]) for name in needed):
        return f"the fields type, {', '.join(needed)} as texts"
    return _source_values(value)


def _source_values(source: dict[str, str]) -> str | None:
    if source["type"] == "demo" and source["builder"] not in DEMO_BUILDERS:
        return f"a builder out of {', '.join(DEMO_BUILDERS)}"
    if source["type"] == "folder" and not source["path"].startswith("/"):
        return "an absolute path"
    if source["type"] == "hub" and not REPOSITORY.fullmatch(source["repository"]):
        return "a repository like owner/name"
    if source["type"] == "hub" and not COMMIT.fullmatch(source["revision"]):
        return "a revision that is a commit hash of 40 hexadecimal digits, not a branch: branches move"
    return None
