"""prove: the smallest step back from full INT8 that keeps float's behaviour on this machine, or float32, and why.

A recipe is chosen on one set of texts and must be confirmed by another, the held-out one, whose figures the release
states. As long as the first look at it confirms the choice, nothing was chosen with it. Each look that does not makes
the next one a choice among several: gate.json and the recap say how many there were (`looks_at_held_out`).
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelbuild.candidate import candidate_folder
from modelbuild.errors import BuildError
from modelbuild.gate import Answers, answer, compare_answers, judge, measure_speed, sample_sequences
from modelbuild.golden import golden_results
from modelbuild.graph import place_graph, weight_bytes
from modelbuild.progress import in_words, say
from modelbuild.quantise import FLOAT32, QUANTISED, TABLE, Recipe, quantise, quantise_products, recipe_for
from modelbuild.request import GATE_TEXT, PROOF_TEXT, Request
from modelbuild.sensitivity import Sensitivity, measure_sensitivity
from modelbuild.texts import GateTexts, read_gate_texts
from modelbuild.thresholds import LADDER, while_choosing
from modelbuild.workspace import Workspace, finished, place, read_json, stage, write_json

FLOAT = "model.onnx"
SENSITIVITY_TEXTS = 24
# A busy machine slows single measurements; time alone gives a recipe up only after so many.
TIMINGS = 3
# Of the time for mixed precision; the rest is for trying what it suggests.
MEASURING_SHARE = 0.3


@dataclass
class Trial:
    """A recipe, the folder it can be served from, and what was found; `wrong` is empty when it passed."""

    recipe: Recipe
    folder: Path
    chosen_with: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    speed: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def too_slow(self) -> bool:
        return any(text.startswith(("time_ratio", "versus_full_int8")) for text in self.wrong)

    def report(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.name,
            "chosen_with": self.chosen_with,
            "held_out": self.figures,
            "speed": self.speed,
            "passed": not self.wrong,
            "wrong": self.wrong,
        }


def prove(workspace: Workspace, request: Request) -> dict[str, Any]:
    """Write STAGING/proof/: the model file to serve, gate.json and golden.json. Quantises first where that is not done.

    BuildError when the float model itself fails the sanity pairs: no recipe can mend that.
    """
    staging = workspace.staging(request.id)
    finished(staging / "fused", "optimise")
    quantise(workspace, request)
    return stage(staging / "proof", lambda folder: _Proof(staging, folder, request).run())


class _Proof:
    def __init__(self, staging: Path, folder: Path, request: Request) -> None:
        self.fused, self.quantised, self.folder = staging / "fused", staging / "quantised", folder
        self.scratch = folder / "scratch"
        self.request, self.profile = request, request.profile
        self.output = str(read_json(staging / "float" / "done.json")["output"])
        self.choosing: GateTexts = read_gate_texts(self.profile.languages, GATE_TEXT)
        self.held_out: GateTexts = read_gate_texts(self.profile.languages, PROOF_TEXT)
        self.sensitivity = Sensitivity({}, {})
        self.trials: list[Trial] = []
        self.seconds = 0.0

    def run(self) -> dict[str, Any]:
        self.scratch.mkdir()
        candidate_folder(self.fused, self.profile, FLOAT, self.output)
        say("prove", f"float model over {len(self.choosing.queries)} queries to choose with")
        self.reference = answer(self.fused, self.profile, self.choosing)
        self._check_reference()
        return self._write(self._decide())

    def _check_reference(self) -> None:
        if self.reference.sanity < 1.0:
            raise BuildError(
                f"{self.profile.name}: the float model itself ranks an irrelevant text above a relevant one. Check the "
                "profile's pooling, prefixes, route and languages, and that the weights are a trained model's."
            )

    def _decide(self) -> Trial:
        """The first of the recipes that passed the choice which the held-out texts confirm; float32 if none is."""
        reference: Answers | None = None
        for trial in self._choices():
            if reference is None:
                say("prove", f"float model over {len(self.held_out.queries)} held-out queries")
                reference = answer(self.fused, self.profile, self.held_out)
            found = answer(trial.folder, self.profile, self.held_out)
            trial.figures = compare_answers(self.profile, self.held_out, reference, found)
            trial.speed = self._speed(trial)
            trial.wrong = judge({**trial.figures, **trial.speed}, self.request.thresholds)
            say(
                "prove",
                f"{trial.recipe.name}, held out: {_verdict(trial)} ({in_words({**trial.figures, **trial.speed})})",
            )
            if not trial.wrong:
                return trial
            if trial.too_slow:
                break  # more care costs more time
        return Trial(FLOAT32, self.fused)

    def _choices(self) -> Iterator[Trial]:
        """Recipes that pass on the texts to choose with, the fewest outliers in float first, then ever more careful."""
        full = self._try(recipe_for(self.request.cpu), self.quantised / TABLE)
        if not full.wrong:
            yield full
        start = time.monotonic()
        budget = self.request.sensitivity_budget
        self.sensitivity = self._measure(budget * MEASURING_SHARE)
        counts = [count for count in LADDER if count < len(self.sensitivity.changes)]
        steps = [*counts, len(self.sensitivity.changes)]
        tried: dict[int, Trial] = {}
        low, high = 0, len(steps) - 1
        while low < high and time.monotonic() - start < budget:
            middle = (low + high) // 2
            tried[middle] = self._try(self._recipe(full.recipe, steps[middle]), self.quantised / TABLE)
            low, high = (low, middle) if not tried[middle].wrong else (middle + 1, high)
        self.seconds = round(time.monotonic() - start, 1)
        for index in range(high, len(steps)):
            recipe = self._recipe(full.recipe, steps[index])
            trial = tried.get(index) or self._try(recipe, self.quantised / TABLE)
            if not trial.wrong:
                yield trial
        yield from self._other_recipes(full.recipe, steps[-1])

    def _other_recipes(self, full: Recipe, count: int) -> Iterator[Trial]:
        """Whole eight bits by the slower unsigned kernels where signed ones saturate; the embedding table in float."""
        outliers = self._recipe(full, count).outliers
        recipes = [(Recipe("uint8", outliers=outliers), self.quantised / TABLE)] if self.request.cpu.saturates else []
        recipes.append((Recipe(full.weights, table_in_int8=False, outliers=outliers), self.fused / FLOAT))
        for recipe, source in recipes:
            trial = self._try(recipe, source)
            if not trial.wrong:
                yield trial

    def _measure(self, seconds: float) -> Sensitivity:
        sequences = sample_sequences(self.fused, self.profile, self.choosing, SENSITIVITY_TEXTS)
        return measure_sensitivity(self.fused / FLOAT, self.output, sequences, self.scratch, seconds)

    def _recipe(self, full: Recipe, count: int) -> Recipe:
        products = list(self.sensitivity.changes)[:count]
        return Recipe(full.weights, outliers=tuple((name, self.sensitivity.channels[name]) for name in products))

    def _try(self, recipe: Recipe, source: Path) -> Trial:
        """Quantise by the recipe and compare with float on the texts to choose with."""
        folder = self.scratch / f"trial-{len(self.trials)}"
        folder.mkdir()
        if self.trials:
            quantise_products(source, folder / QUANTISED, recipe)
        else:
            place_graph(self.quantised / QUANTISED, folder)  # everything in INT8 is there already
        for name in ("tokenizer.json", "config.json"):
            place(self.fused / name, folder / name)
        candidate_folder(folder, self.profile, QUANTISED, self.output)
        trial = Trial(recipe, folder)
        found = answer(folder, self.profile, self.choosing)
        trial.chosen_with = compare_answers(self.profile, self.choosing, self.reference, found)
        trial.wrong = judge(trial.chosen_with, while_choosing(self.request.thresholds))
        self.trials.append(trial)
        say("prove", f"{recipe.name}: {_verdict(trial)} ({in_words(trial.chosen_with)})")
        if trial.wrong and len(self.trials) > 1:
            shutil.rmtree(folder)
        return trial

    def _speed(self, trial: Trial) -> dict[str, float]:
        full = self.trials[0]
        folders = {"float_ms": self.fused, "int8_ms": trial.folder, "full_int8_ms": full.folder}
        if trial is full:
            del folders["full_int8_ms"]  # the same model twice would differ by chance
        fastest: dict[str, float] = {}
        for _ in range(TIMINGS):
            for name, ms in measure_speed(folders, self.profile, self.choosing).items():
                fastest[name] = min(ms, fastest.get(name, ms))
            speed = {"full_int8_ms": fastest["int8_ms"], **fastest}
            speed["time_ratio"] = round(speed["int8_ms"] / speed["float_ms"], 3)
            speed["versus_full_int8"] = round(speed["int8_ms"] / speed["full_int8_ms"], 3)
            if not judge(speed, self.request.thresholds):
                break
        return speed

    def _write(self, chosen: Trial) -> dict[str, Any]:
        in_float = chosen.recipe == FLOAT32
        file = FLOAT if in_float else QUANTISED
        place_graph(chosen.folder / file, self.folder)
        for name in ("tokenizer.json", "config.json"):
            place(self.fused / name, self.folder / name)
        if self.request.keep_float and not in_float:
            (self.folder / "float").mkdir()
            place_graph(self.fused / FLOAT, self.folder / "float")
        int8_bytes = weight_bytes((self.trials[0].folder if in_float else chosen.folder) / QUANTISED)
        shutil.rmtree(self.scratch)
        candidate_folder(self.folder, self.profile, file, self.output)
        write_json(self.folder / "golden.json", {"golden": golden_results(self.folder, self.profile, self.choosing)})
        result = {
            "file": file,
            "output": self.output,
            "recipe": chosen.recipe.name,
            "reason": self._reason(chosen),
            "figures": {**chosen.figures, "looks_at_held_out": self._looks()} if chosen.figures else {},
            "speed": chosen.speed,
            "float_bytes": weight_bytes(self.fused / FLOAT),
            "int8_bytes": int8_bytes,
        }
        write_json(self.folder / "gate.json", {**result, **self._details(chosen.recipe)})
        say("prove", f"chosen: {result['recipe']} ({result['reason']})")
        return result

    def _details(self, recipe: Recipe) -> dict[str, Any]:
        return {
            "kind": self.profile.kind,
            "passed": True,
            "weights": recipe.weights,
            "outliers": dict(recipe.outliers),
            "table_in_int8": recipe.table_in_int8,
            "thresholds": self.request.thresholds,
            "while_choosing": while_choosing(self.request.thresholds),
            "attempts": [trial.report() for trial in self.trials],
            "sensitivity": self.sensitivity.changes,
            "sensitivity_seconds": self.seconds,
            # More than one: the held-out texts took part in the choice, and their figures flatter it a little.
            "looks_at_held_out": self._looks(),
        }

    def _looks(self) -> int:
        return sum(bool(trial.figures) for trial in self.trials)

    def _reason(self, chosen: Trial) -> str:
        full = self.trials[0]
        if chosen is full:
            return "everything in INT8 passed the gate"
        missed = _first(full.wrong)
        if chosen.recipe != FLOAT32:
            return f"everything in INT8 missed the gate ({missed}); this is the smallest step back found that passed"
        return f"no INT8 recipe passed the gate; the last one: {_first(self.trials[-1].wrong)}"


def _first(wrong: list[str]) -> str:
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more}" if wrong else ""


def _verdict(trial: Trial) -> str:
    return "; ".join(trial.wrong) or "passed"
