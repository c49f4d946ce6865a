# SPDX-License-Identifier: MIT
"""The profiles that can be chosen, and what the hub says about a model, turned into a pin."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

# What checks a profile on the VM checks it here too; it needs the standard library alone.
sys.path.append(str(Path(__file__).resolve().parents[2] / "files" / "all-in-one"))

from modelbuild.errors import BuildError
from modelbuild.hub import beside_graph, choose
from modelbuild.profile import COMMIT, Profile, hashes_problem, profile_problems
from modelbuild.thresholds import thresholds_for

Profiles = dict[str, dict[str, Any]]


def model_profiles(catalogue: Profiles, extra: Any, pins: Any) -> Profiles:
    """All profiles by name: the operator's own go before the catalogue's, and a pin before either's revision.

    What the operator wrote that is no profile or no pin is left out here; model_problems tells what is wrong with it.
    """
    own = extra if isinstance(extra, dict) else {}
    profiles = {**catalogue, **{name: profile for name, profile in own.items() if isinstance(profile, dict)}}
    for name, pin in pins.items() if isinstance(pins, dict) else ():
        if name in profiles and isinstance(profiles[name].get("source"), dict) and not model_pin_problems(pin):
            source = {**profiles[name]["source"], "revision": pin["revision"]}
            profiles[name] = {**profiles[name], "source": source, "files": pin.get("files") or {}}
    return profiles


def model_problems(extra: Any, pins: Any, thresholds: Any) -> list[str]:
    """Everything wrong with models_extra_profiles, models_pins and models_gate_thresholds, a sentence each."""
    given = {"models_extra_profiles": extra, "models_pins": pins, "models_gate_thresholds": thresholds}
    problems = [
        f"{variable} is {value!r}; expected entries by name. Write {{}} for none; docs/models.md has examples."
        for variable, value in given.items()
        if not isinstance(value, dict)
    ]
    if isinstance(extra, dict):
        problems += model_profiles_problems(extra)
    if isinstance(pins, dict):
        problems += [
            f"models_pins, {name}: {problem} Run playbooks/pin.yml, or take the entry out."
            for name, pin in pins.items()
            for problem in model_pin_problems(pin)
        ]
    if isinstance(thresholds, dict):
        problems += model_thresholds_problems(thresholds)
    return problems


def model_pin_problems(pin: Any) -> list[str]:
    """Everything wrong with one pin."""
    if not isinstance(pin, dict):
        return [f"it is {pin!r}, expected the fields revision and files."]
    problems = [f"{name} is not a field of a pin." for name in pin if name not in ("revision", "files")]
    revision, files = pin.get("revision"), pin.get("files")
    if not isinstance(revision, str) or not COMMIT.fullmatch(revision):
        problems.append(f"revision is {revision!r}, expected a commit hash of 40 hexadecimal digits.")
    if files is not None and (expected := hashes_problem(files)):
        problems.append(f"files is {files!r}, expected {expected}.")
    return problems


def model_thresholds_problems(thresholds: dict[str, Any]) -> list[str]:
    """What is wrong with the thresholds, checked as the build does; one that is wrong for both kinds is told once."""
    problems = []
    for name, value in thresholds.items():
        try:
            thresholds_for("embedding", {name: value})
        except BuildError as error:
            problems.append(f"models_gate_thresholds: {error} Correct it, or take it out for the default.")
    return problems


def model_profiles_problems(profiles: dict[str, Any]) -> list[str]:
    """Everything wrong with the operator's own profiles, a sentence each."""
    return [
        f"models_extra_profiles, {name}: {problem} docs/models.md has a whole example."
        for name, profile in profiles.items()
        for problem in model_profile_problems(profile, name)
    ]


def model_profile_problems(profile: Any, name: str) -> list[str]:
    """Everything wrong with one profile, its missing pin aside, which has a sentence of its own."""
    if not isinstance(profile, dict):
        return [f"it is {profile!r}, expected the fields of a profile."]
    source = profile.get("source")
    if isinstance(source, dict) and source.get("type") == "hub" and source.get("revision", "") is None:
        profile = {**profile, "source": {**source, "revision": "0" * 40}}
    return profile_problems({**profile, "name": name})


def model_pin(listing: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
    """{"revision", "files"} out of the hub's answer about a repository: the hashes that it states of what is needed."""
    published = {entry["rfilename"]: entry for entry in listing["siblings"]}
    known = {key: value for key, value in profile.items() if key in ("kind", "route", "file", "remote_code")}
    wanted = Profile(name="", source=profile["source"], max_length=0, licence="", **known)
    try:
        names = choose(wanted, sorted(published))
        if wanted.route == "prebuilt":
            names = list(dict.fromkeys([*names, *beside_graph(wanted, sorted(published))]))
    except BuildError as error:
        raise ValueError(str(error)) from error
    files = {name: published[name]["lfs"]["sha256"] for name in names if published[name].get("lfs")}
    return {"revision": listing["sha"], "files": files}


def model_pins(answers: list[dict[str, Any]], profiles: Profiles) -> Profiles:
    """Pins by name, of the hub's answers in the results of a loop over names."""
    return {answer["item"]: model_pin(answer["json"], profiles[answer["item"]]) for answer in answers}


def model_pin_name_problems(profiles: Profiles, asked: list[Any], by_name: bool) -> list[str]:
    """Why what is asked cannot be pinned, a sentence each; a chosen model that needs no pin is one only `by_name`."""
    problems = []
    for name in asked:
        if not isinstance(name, str) or name not in profiles:
            near = difflib.get_close_matches(str(name), profiles, n=1)
            hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(sorted(profiles))}."
            problems.append(f"{name!r} is no model of the catalogue or of models_extra_profiles; {hint}")
        elif wrong := model_profile_problems(profiles[name], name):
            problems += [f"models_extra_profiles, {name}: {problem}" for problem in wrong]
        elif by_name and profiles[name]["source"]["type"] != "hub":
            problems.append(
                f"{name} comes from {profiles[name]['source']['type']}, not from a hub: there is nothing to pin. "
                "Take it out of models_pin_names."
            )
    return problems


def model_pin_names(profiles: Profiles, asked: list[str], update: bool) -> list[str]:
    """Whom the hub is asked about: what has no commit, or with `update` everything that comes from a hub."""
    sources = {name: profiles[name]["source"] for name in asked}
    return [name for name, source in sources.items() if source["type"] == "hub" and (update or not source["revision"])]


def model_pin_report(profiles: Profiles, asked: list[str], new: Profiles) -> list[str]:
    """What is true now of each model that was asked for; `profiles` and their pins are from before."""
    told = []
    for name in dict.fromkeys(asked):
        source = profiles[name]["source"]
        if source["type"] != "hub":
            told.append(f"{name} comes from {source['type']}: there is nothing to pin")
        elif name not in new:
            told.append(f"{name} was pinned already, to {source['revision']}")
        elif source["revision"] == new[name]["revision"]:
            told.append(f"{name} stays pinned to {source['revision']}, which the hub still has as its newest")
        else:
            told.append(f"{name} is pinned now, to {new[name]['revision']}")
    return told


def index_needs(answer: dict[str, Any]) -> str:
    """What a second index takes, for the play's output: from what `python -m store fits` answered."""
    counted = answer["counted"]
    parts = [
        f"{what} about {needed / 1e6:.0f} MB" + (f" of {there / 1e6:.0f} MB" if there is not None else "")
        for what, needed, there in (
            ("disk", counted["disk_needed"], counted["disk_free"]),
            ("the app", counted["app_needed"], counted["app_memory"]),
            ("the worker", counted["worker_needed"], counted["worker_memory"]),
        )
        if needed is not None
    ]
    return f"A second index is built beside the one that serves, of {answer['documents']} documents: {', '.join(parts)}"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {
            "model_profiles": model_profiles,
            "model_problems": model_problems,
            "model_pins": model_pins,
            "model_pin_name_problems": model_pin_name_problems,
            "model_pin_names": model_pin_names,
            "model_pin_report": model_pin_report,
            "index_needs": index_needs,
        }
