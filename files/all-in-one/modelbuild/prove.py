"""prove: the smallest step back from full INT8 that passes the gate on this machine, or float32, and why."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelbuild.candidate import candidate_folder
from modelbuild.errors import BuildError
from modelbuild.gate import Answers, answer, compare_answers, judge, measure_speed, sample_sequences
from modelbuild.golden import golden_results
from modelbuild.graph import files_of, weight_bytes
from modelbuild.progress import say
from modelbuild.quantise import FLOAT32, QUANTISED, TABLE, Recipe, quantise, quantise_products, recipe_for
from modelbuild.request import Request
from modelbuild.sensitivity import rank_products
from modelbuild.texts import GateTexts, read_gate_texts
from modelbuild.thresholds import LADDER, MOST_IN_FLOAT
from modelbuild.workspace import Workspace, finished, place, read_json, stage, write_json

FLOAT = "model.onnx"
SENSITIVITY_TEXTS = 8


@dataclass
class Trial:
    """One recipe's way through the gate; `wrong` is empty when it passed."""

    recipe: Recipe
    figures: dict[str, float] = field(default_factory=dict)
    speed: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def too_slow(self) -> bool:
        return any(text.startswith("time_ratio") for text in self.wrong)

    def report(self) -> dict[str, Any]:
        return {"recipe": self.recipe.name, **self.figures, **self.speed, "passed": not self.wrong, "wrong": self.wrong}


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
        self.attempt = folder / "attempt"
        self.request, self.profile = request, request.profile
        self.output = str(read_json(staging / "float" / "done.json")["output"])
        self.texts: GateTexts = read_gate_texts(self.profile.languages)
        self.sensitivity: dict[str, float] = {}
        self.trials: list[Trial] = []

    def run(self) -> dict[str, Any]:
        candidate_folder(self.fused, self.profile, FLOAT, self.output)
        say("prove", f"float model over {len(self.texts.passages)} passages and {len(self.texts.queries)} queries")
        self.reference = answer(self.fused, self.profile, self.texts)
        self._check_reference(self.reference)
        chosen = self._climb_down()
        return self._write(chosen)

    def _check_reference(self, reference: Answers) -> None:
        if reference.sanity < 1.0:
            raise BuildError(
                f"{self.profile.name}: the float model itself ranks an irrelevant text above a relevant one. Check the "
                "profile's pooling, prefixes, route and languages, and that the weights are a trained model's."
            )

    def _climb_down(self) -> Trial:
        """The first recipe of the ladder that passes; float32 when none does."""
        full = recipe_for(self.request.cpu)
        last = self._try(full, self.quantised / QUANTISED)
        if last.wrong and not last.too_slow:
            self._rank()
            for recipe in self._steps_back(full):
                last = self._try_step(recipe)
                if not last.wrong or last.too_slow:
                    break
        if not last.wrong:
            return last
        return Trial(FLOAT32, speed={"float_ms": last.speed["float_ms"]} if last.speed else {})

    def _steps_back(self, full: Recipe) -> list[Recipe]:
        """More and more products in float, the most sensitive first; then the embedding table too."""
        names = tuple(self.sensitivity)
        most = int(len(names) * MOST_IN_FLOAT)
        steps = [full.leaving(names[:count]) for count in LADDER if 0 < count <= most]
        last = steps[-1] if steps else full
        return [*steps, Recipe(last.weights, table_in_int8=False, in_float=last.in_float)]

    def _rank(self) -> None:
        sequences = sample_sequences(self.fused, self.profile, self.texts, SENSITIVITY_TEXTS)
        self.sensitivity = rank_products(self.fused / FLOAT, self.output, sequences, self.attempt)

    def _try_step(self, recipe: Recipe) -> Trial:
        source = self.quantised / TABLE if recipe.table_in_int8 else self.fused / FLOAT
        self.attempt.mkdir(exist_ok=True)
        scratch = self.attempt / f"step.{QUANTISED}"
        scratch.unlink(missing_ok=True)
        quantise_products(source, scratch, recipe)
        return self._try(recipe, scratch)

    def _try(self, recipe: Recipe, model_file: Path) -> Trial:
        """Gate a quantised file: agreement with float first, speed only for what agrees."""
        shutil.rmtree(self.attempt / "served", ignore_errors=True)
        served = self.attempt / "served"
        served.mkdir(parents=True)
        place(model_file, served / QUANTISED)
        for name in ("tokenizer.json", "config.json"):
            place(self.fused / name, served / name)
        candidate_folder(served, self.profile, QUANTISED, self.output)
        candidate = answer(served, self.profile, self.texts)
        trial = Trial(recipe, compare_answers(self.profile, self.texts, self.reference, candidate))
        trial.wrong = judge(trial.figures, self.request.thresholds)
        if not trial.wrong:
            trial.speed = measure_speed(self.fused, served, self.profile, self.texts)
            trial.wrong = judge({**trial.figures, **trial.speed}, self.request.thresholds)
        self.trials.append(trial)
        say(
            "prove",
            f"{recipe.name}: {'passed' if not trial.wrong else '; '.join(trial.wrong)} {trial.figures} {trial.speed}",
        )
        return trial

    def _write(self, chosen: Trial) -> dict[str, Any]:
        served = self.attempt / "served"
        int8_bytes = weight_bytes(served / QUANTISED)
        file = QUANTISED if chosen.recipe != FLOAT32 else FLOAT
        source = served if chosen.recipe != FLOAT32 else self.fused
        for path in files_of(source / file):
            place(path, self.folder / path.name)
        for name in ("tokenizer.json", "config.json"):
            place(self.fused / name, self.folder / name)
        shutil.rmtree(self.attempt)
        candidate_folder(self.folder, self.profile, file, self.output)
        write_json(self.folder / "golden.json", {"golden": golden_results(self.folder, self.profile, self.texts)})
        result = {
            "file": file,
            "output": self.output,
            "recipe": chosen.recipe.name,
            "reason": self._reason(chosen),
            "figures": chosen.figures,
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
            "in_float": list(recipe.in_float),
            "table_in_int8": recipe.table_in_int8,
            "thresholds": self.request.thresholds,
            "texts": {"passages": len(self.texts.passages), "queries": len(self.texts.queries)},
            "attempts": [trial.report() for trial in self.trials],
            "sensitivity": self.sensitivity,
        }

    def _reason(self, chosen: Trial) -> str:
        if not self.trials[0].wrong:
            return "full INT8 passed the gate"
        missed = "; ".join(self.trials[0].wrong)
        if chosen.recipe != FLOAT32:
            return f"full INT8 missed the gate ({missed}); this is the first step back that passed"
        return f"no INT8 recipe passed the gate; the last one: {'; '.join(self.trials[-1].wrong)}"
