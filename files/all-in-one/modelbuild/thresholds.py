"""What a quantised model must keep of the float model's behaviour, and how the recipe steps back when it does not.

Every number the gate decides with is here; `--thresholds` overrides any of them by name.
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelbuild.errors import BuildError

# Raise it when recipes, the gate's way of measuring or the export change: finished releases are then built anew.
POLICY_VERSION = 4

# Products whose outlier channels are computed in float, at each step of the ladder, most sensitive first; the last step
# takes all there are. With e5-small and 8 channels each, 12 products cost 5 % of the time of everything in INT8, 36 a
# fifth; 16 channels ranked no better than 8.
LADDER = (3, 6, 9, 12, 18, 24, 36)
CHANNELS = 8

# An export and a fused graph only reorder float arithmetic: more than this is a defect, not a loss.
EXPORT_MIN_COSINE = 0.9999
EXPORT_MAX_LOGIT_CHANGE = 1e-3

# What the held-out texts must show. min_* are lower limits, max_* upper ones. "language_" means the worst single
# language, so that an average over languages cannot hide one that broke. Orders count more than cosines: similarities
# of some models all lie close together, and a search shows an order. max_time_ratio is INT8's time by float's,
# max_versus_full_int8 the time by that of everything in INT8: a mix that costs a tenth more than that has spent what
# INT8 is for, and the next step of the ladder would cost more yet.
DEFAULTS: dict[str, dict[str, float]] = {
    "embedding": {
        # Everything in INT8 gives 0.997 and 0.992 with e5-small: visible losses in the order of results.
        "min_mean_cosine": 0.998,
        "min_cosine": 0.995,
        "min_spearman": 0.99,
        # One result in thirteen of the first ten may differ, nearly always at the end, where scores nearly tie.
        "min_top10_overlap": 0.92,
        "min_language_top10_overlap": 0.90,
        "min_top1_agreement": 0.90,
        "max_time_ratio": 1.0,
        "max_versus_full_int8": 1.1,
    },
    "reranker": {
        "max_mean_drift": 0.02,
        # Of a probability, in the worst of several hundred pairs.
        "max_drift": 0.15,
        "min_spearman": 0.98,
        "min_top1_agreement": 0.95,
        "min_language_top1_agreement": 0.90,
        "max_time_ratio": 1.0,
        "max_versus_full_int8": 1.1,
    },
}
# The choice is made on fewer texts, and the best of several tries flatters itself: it must keep this share of the
# allowed loss in hand.
IN_HAND = 0.25
TIMES = ("max_time_ratio", "max_versus_full_int8")


def while_choosing(thresholds: Mapping[str, float]) -> dict[str, float]:
    """The thresholds that a recipe must meet on the texts it is chosen with; time is not measured then."""
    return {
        name: round(limit + (1 - limit) * IN_HAND if name.startswith("min_") else limit * (1 - IN_HAND), 6)
        for name, limit in thresholds.items()
        if name not in TIMES
    }


def thresholds_for(kind: str, overrides: Mapping[str, Any]) -> dict[str, float]:
    """Thresholds of a kind of model with `overrides`: {name: number}, or {kind: {name: number}}, or both.

    A flat name applies to every kind that has it. BuildError for a name that no kind has, or a value that is no number.
    """
    chosen = dict(DEFAULTS[kind])
    for name, value in overrides.items():
        if name in DEFAULTS:
            if not isinstance(value, Mapping):
                raise BuildError(f"Thresholds: {name} is {value!r}, expected an object of names and numbers.")
            for inner, number in value.items():
                _check(inner, number, DEFAULTS[name])
            chosen.update({inner: float(number) for inner, number in value.items()} if name == kind else {})
            continue
        _check(name, value, {key: 0.0 for names in DEFAULTS.values() for key in names})
        if name in chosen:
            chosen[name] = float(value)
    return chosen


def read_overrides(text: str | None) -> dict[str, Any]:
    """Overrides given as JSON text or as the path of a JSON file."""
    if not text:
        return {}
    source = text
    try:
        if not text.lstrip().startswith("{"):
            source = Path(text).read_text(encoding="utf-8")
        overrides = json.loads(source)
    except (OSError, ValueError) as error:
        raise BuildError(f"--thresholds {text!r} is neither JSON nor a readable JSON file: {error}.") from error
    if not isinstance(overrides, dict):
        raise BuildError(f"--thresholds {text!r}: expected an object of names and numbers.")
    return overrides


def _check(name: str, value: Any, known: Mapping[str, float]) -> None:
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f", did you mean {near[0]}" if near else f"; the names are {', '.join(known)}"
        raise BuildError(f"Thresholds: {name} is unknown{hint}.")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BuildError(f"Thresholds: {name} is {value!r}, expected a number.")
    if value < 0 or (name.startswith("min_") and value > 1):
        raise BuildError(f"Thresholds: {name} is {value!r}, expected a number that a model can reach (0 to 1).")
