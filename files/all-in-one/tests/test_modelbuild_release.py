"""From a float graph to an active release: prove, step back, publish, switch, and be killed on the way."""

import dataclasses
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_graphs

import modelbuild
from modelbuild.activate import activate
from modelbuild.build import summary
from modelbuild.cli import run_stage
from modelbuild.errors import BuildError
from modelbuild.fetch import fetch
from modelbuild.profile import parse_profile
from modelbuild.publish import publish
from modelbuild.request import Request, make_request
from modelbuild.workspace import Workspace, stage, write_json
from pipeline import golden
from pipeline.cpu import detect
from pipeline.embedder import Embedder
from pipeline.reranker import Reranker

PAYLOAD = Path(modelbuild.__file__).parent.parent
# INT8 gains nothing on matrices this small, so its speed is not what these tests are about.
LENIENT = {
    "max_time_ratio": 1e6,
    "max_versus_full_int8": 1e6,
    "min_top1_agreement": 0.5,
    "min_language_top1_agreement": 0.5,
}
ANYTHING = {"embedding": {"min_top10_overlap": 0, "min_language_top10_overlap": 0, "min_spearman": 0}}
PERFECTION = {"embedding": {"min_mean_cosine": 1.0}, "reranker": {"min_spearman": 1.0}}


@dataclasses.dataclass(frozen=True)
class Build:
    """A build whose export is done: everything after it needs no PyTorch."""

    workspace: Workspace
    request: Request
    profile_file: Path

    def run(self, *stages: str) -> dict[str, Any]:
        """The last stage's line; a release is also published, and its summary given."""
        result: dict[str, Any] = {}
        for name in stages:
            result = run_stage(self.workspace, self.request, name)
        if stages[-1] == "release" and not self.workspace.is_released(self.request.id):
            result |= summary(publish(self.workspace, self.request.id))
        return result

    @property
    def released(self) -> Path:
        return self.workspace.release(self.request.id)

    @property
    def manifest(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.released / "manifest.json").read_text())
        return content


def exported(folder: Path, kind: str = "embedding", overrides: dict[str, Any] | None = None, **changes: Any) -> Build:
    """A fetched snapshot and a finished export, as the first two stages leave them."""
    source = tiny_graphs.write_model(folder / "source", kind)
    (source / "model.safetensors").write_bytes(b"weights")
    content = tiny_graphs.profile(kind, source={"type": "folder", "path": str(source)}, **changes)
    folder.joinpath("profile.json").write_text(json.dumps(content))
    workspace = Workspace(folder / "models", folder / "cache", folder / "state")
    profile = parse_profile(content)
    fetch(workspace, profile)
    build = Build(
        workspace, make_request(profile, {**LENIENT, **ANYTHING, **(overrides or {})}), folder / "profile.json"
    )

    def write_export(target: Path) -> dict[str, Any]:
        tiny_graphs.write_model(target, kind)
        output = "logits" if kind == "reranker" else "sentence_embedding"
        return {"output": output, "float_bytes": 1, "versus_original": None}

    stage(workspace.staging(build.request.id) / "float", write_export)
    return build


STAGES = ("optimise", "quantise", "prove", "release")


def test_a_passing_recipe_becomes_a_release_that_serves(tmp_path: Path) -> None:
    build = exported(tmp_path)
    result = build.run(*STAGES)
    assert result["changed"] is True
    assert result["recipe"].startswith("int8")
    embedder = Embedder(build.released)
    assert embedder.release_id == build.request.id
    assert embedder.folder is not None
    assert embedder.folder.file.name == "model.int8.onnx"
    assert golden.check(embedder) > 0.999
    assert golden.proven_here(build.manifest)


def test_a_reranker_goes_the_same_way(tmp_path: Path) -> None:
    build = exported(tmp_path, "reranker", {"reranker": {"max_drift": 1, "max_mean_drift": 1, "min_spearman": 0}})
    build.run(*STAGES)
    reranker = Reranker(build.released)
    assert golden.check(reranker) > 0.97
    assert "space" not in build.manifest


def test_the_manifest_says_what_was_asked_chosen_and_measured(tmp_path: Path) -> None:
    build = exported(tmp_path)
    build.run(*STAGES)
    manifest = build.manifest
    assert manifest["schema"] == 1
    assert manifest["profile"] == json.loads(build.profile_file.read_text())
    assert manifest["recipe"]["weights"] == "int8-7bit" if detect().saturates else "int8"
    assert manifest["recipe"]["reason"] == "everything in INT8 passed the gate"
    assert manifest["cpu"]["class"] == detect().name
    assert manifest["versions"]["onnxruntime"]
    assert manifest["inputs"] == ["input_ids", "attention_mask"]
    assert (manifest["output"], manifest["dimension"], manifest["max_length"]) == ("sentence_embedding", 32, 64)
    assert manifest["pad_id"] == 0
    assert manifest["gate"]["passed"] is True
    assert (manifest["gate"]["queries"], manifest["gate"]["looks_at_held_out"]) == (320, 1)
    assert manifest["gate"]["mean_cosine"] >= 0.99
    assert manifest["sizes"]["int8_bytes"] < manifest["sizes"]["float_bytes"]
    assert set(manifest["speed"]) == {"float_ms", "int8_ms", "full_int8_ms", "time_ratio", "versus_full_int8"}
    assert manifest["fusion"]["why"] == "fusion does not know the architecture 'tiny'"


def test_the_embedding_space_of_a_folder_is_pinned_by_its_weights(tmp_path: Path) -> None:
    build = exported(tmp_path)
    build.run(*STAGES)
    space = build.manifest["space"]
    assert space["repository"] == f"folder:{tmp_path / 'source'}"
    assert space["revision"] == build.manifest["snapshot"]["weights_sha256"]
    assert len(space["revision"]) == 64
    assert {key: space[key] for key in ("pooling", "normalize", "dimension", "max_length")} == {
        "pooling": "mean",
        "normalize": True,
        "dimension": 32,
        "max_length": 64,
    }
    assert space["prefixes"] == {"query": "q: ", "passage": "p: "}


def test_the_manifest_hashes_every_file_of_the_release(tmp_path: Path) -> None:
    build = exported(tmp_path)
    build.run(*STAGES)
    names = {path.name for path in build.released.iterdir()} - {"manifest.json"}
    model = {"model.int8.onnx", "model.int8.onnx.data"}
    assert set(build.manifest["files"]) == names == {*model, "tokenizer.json", "config.json", "gate.json"}
    for name, sha256 in build.manifest["files"].items():
        assert hashlib.sha256((build.released / name).read_bytes()).hexdigest() == sha256


def test_a_release_is_readable_by_all_and_writable_by_none(tmp_path: Path) -> None:
    build = exported(tmp_path)
    build.run(*STAGES)
    assert stat.S_IMODE(build.released.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in build.released.iterdir()} == {0o444}


def test_staging_is_gone_after_the_release(tmp_path: Path) -> None:
    build = exported(tmp_path)
    build.run(*STAGES)
    assert list((tmp_path / "models" / ".staging").iterdir()) == []


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    build = exported(tmp_path)
    first = {name: build.run(name)["changed"] for name in STAGES}
    before = (build.released / "manifest.json").stat().st_mtime_ns
    assert set(first.values()) == {True}
    for name in ("fetch", "export", *STAGES):
        again = build.run(name)
        assert again["changed"] is False
        assert again["recipe"] == build.manifest["recipe"]["name"]
    assert (build.released / "manifest.json").stat().st_mtime_ns == before


def test_a_finished_stage_is_not_repeated_before_the_release_either(tmp_path: Path) -> None:
    build = exported(tmp_path)
    build.run("optimise", "quantise")
    assert build.run("optimise")["changed"] is False
    assert build.run("quantise")["changed"] is False


def test_prove_quantises_where_that_was_left_out(tmp_path: Path) -> None:
    build = exported(tmp_path)
    assert build.run("optimise", "prove", "release")["changed"] is True


def test_what_a_killed_stage_left_is_done_again(tmp_path: Path) -> None:
    build = exported(tmp_path)
    half = build.workspace.staging(build.request.id) / "fused"
    half.mkdir()
    (half / "model.onnx").write_bytes(b"half a mod")
    assert build.run(*STAGES)["changed"] is True
    assert golden.check(Embedder(build.released)) > 0.999


def test_a_stage_out_of_turn_names_the_one_before(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="python -m modelbuild optimise"):
        exported(tmp_path).run("prove")


def test_when_no_recipe_passes_the_release_is_float32_and_says_why(tmp_path: Path) -> None:
    build = exported(tmp_path, overrides=PERFECTION)
    result = build.run(*STAGES)
    assert result["recipe"] == "float32"
    assert "no INT8 recipe passed the gate" in result["reason"]
    assert "is below 1.0" in result["reason"]
    assert build.manifest["file"] == "model.onnx"
    gate = json.loads((build.released / "gate.json").read_text())
    names = [attempt["recipe"].partition(",") for attempt in gate["attempts"]]
    assert [rest for weights, _, rest in names if weights != "uint8"] == [
        "",
        " outliers of 2 products in float",
        " outliers of 2 products in float, embedding table in float",
    ]
    assert ("uint8" in {weights for weights, _, _ in names}) == detect().saturates
    assert gate["looks_at_held_out"] == 0
    assert set(gate["sensitivity"]) == {"first_product", "second_product"}
    assert golden.check(Embedder(build.released)) > 0.999


def test_int8_slower_than_float_is_refused(tmp_path: Path) -> None:
    build = exported(tmp_path, overrides={"max_time_ratio": 1e-6})
    result = build.run(*STAGES)
    assert result["recipe"] == "float32"
    assert "time_ratio" in result["reason"]
    assert len(json.loads((build.released / "gate.json").read_text())["attempts"]) == 1


def test_a_mix_that_takes_much_longer_than_everything_in_int8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(folders: dict[str, Path], *_: Any) -> dict[str, float]:
        return {name: {"float_ms": 10.0, "int8_ms": 5.6, "full_int8_ms": 5.0}[name] for name in folders}

    monkeypatch.setattr("modelbuild.prove.measure_speed", measured)
    monkeypatch.setattr("modelbuild.prove.while_choosing", lambda thresholds: {})
    build = exported(tmp_path, overrides={**PERFECTION, "max_versus_full_int8": 1.1})
    assert build.run(*STAGES)["recipe"] == "float32"
    attempts = json.loads((build.released / "gate.json").read_text())["attempts"]
    assert [attempt["speed"]["versus_full_int8"] for attempt in attempts] == [1.0, 1.12]
    assert "versus_full_int8 1.12 is above 1.1" in attempts[1]["wrong"]


def test_one_slow_measurement_gives_no_recipe_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slowed = iter([20.0])

    def measured(folders: dict[str, Path], *_: Any) -> dict[str, float]:
        return {"float_ms": 10.0, "int8_ms": next(slowed, 5.0)}

    monkeypatch.setattr("modelbuild.prove.measure_speed", measured)
    build = exported(tmp_path, overrides={"max_time_ratio": 0.9})
    # Which of the two depends on this machine's instructions.
    assert build.run(*STAGES)["recipe"] in ("int8", "int8-7bit")
    (attempt,) = json.loads((build.released / "gate.json").read_text())["attempts"]
    assert attempt["speed"]["time_ratio"] == 0.5


def test_a_float_model_that_ranks_nonsense_first_is_an_error(tmp_path: Path) -> None:
    build = exported(tmp_path, "reranker", languages=["ko", "en"], name="nonsense")
    build.run("optimise")
    with pytest.raises(BuildError, match="the float model itself"):
        build.run("prove")


@pytest.mark.parametrize("kind", ["embedding", "reranker"])
def test_one_command_builds_and_activates_a_prebuilt_model(tmp_path: Path, kind: str) -> None:
    source = tiny_graphs.write_model(tmp_path / "source", kind, pooled=False, inputs=tiny_graphs.ALL_INPUTS)
    # Claims an architecture that fusion knows, with a graph that it does not: recorded, not fatal.
    config = {"model_type": "bert", "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32}
    (source / "config.json").write_text(json.dumps(config))
    content = tiny_graphs.profile(
        kind, source={"type": "folder", "path": str(source)}, route="prebuilt", file="model.onnx"
    )
    (tmp_path / "profile.json").write_text(json.dumps(content))
    wide = {"reranker": {"max_drift": 1, "max_mean_drift": 1, "min_spearman": 0}}
    command = [sys.executable, "-m", "modelbuild", "build", "--activate", "--profile", str(tmp_path / "profile.json")]
    command += ["--thresholds", json.dumps({**LENIENT, **ANYTHING, **wide}), "--models-dir", str(tmp_path / "models")]
    command += ["--cache-dir", str(tmp_path / "cache"), "--state-dir", str(tmp_path / "state")]
    for changed in (True, False):
        done = subprocess.run(command, cwd=PAYLOAD, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["changed"] is changed
        assert result["recipe"].startswith("int8")
        if changed:
            assert re.fullmatch(
                r"built in \d+ s, peak \d+ MB \(fetch \d+ s, export .*, prove \d+ s, release \d+ s\)", result["cost"]
            )
    link = tmp_path / "models" / ("emb" if kind == "embedding" else "rerank")
    model = Embedder(link) if kind == "embedding" else Reranker(link)
    assert model.release_id == result["id"]
    assert golden.check(model) > 0.97
    manifest = json.loads((link / "manifest.json").read_text())
    assert "attention fused in 0 of 2 layers" in manifest["fusion"]["why"]


def test_activation_is_a_relative_link_with_an_audit_line(tmp_path: Path) -> None:
    build = exported(tmp_path)
    build.run(*STAGES)
    assert activate(build.workspace, "embedding", build.request.id)["changed"] is True
    link = tmp_path / "models" / "emb"
    assert os.readlink(link) == f"releases/{build.request.id}"
    assert Embedder(link).release_id == build.request.id
    entry = json.loads((tmp_path / "state" / "audit.log").read_text())
    assert (entry["event"], entry["kind"], entry["release"]) == ("activate", "embedding", build.request.id)
    assert activate(build.workspace, "embedding", build.request.id)["changed"] is False
    assert len((tmp_path / "state" / "audit.log").read_text().splitlines()) == 1


def test_a_damaged_release_is_not_activated(tmp_path: Path) -> None:
    build = exported(tmp_path)
    build.run(*STAGES)
    (build.released / "config.json").chmod(0o644)
    (build.released / "config.json").write_text("{}")
    with pytest.raises(BuildError, match=r"config\.json.*damaged"):
        activate(build.workspace, "embedding", build.request.id)
    assert not (tmp_path / "models" / "emb").is_symlink()


def test_only_a_release_of_the_kind_is_activated(tmp_path: Path) -> None:
    build = exported(tmp_path)
    build.run(*STAGES)
    with pytest.raises(BuildError, match="of kind embedding, expected reranker"):
        activate(build.workspace, "reranker", build.request.id)
    with pytest.raises(BuildError, match=f"Those there: {build.request.id}"):
        activate(build.workspace, "embedding", "missing-000000000000")


def test_a_real_folder_in_the_links_place_is_left_alone(tmp_path: Path) -> None:
    build = exported(tmp_path)
    build.run(*STAGES)
    (tmp_path / "models" / "emb").mkdir()
    with pytest.raises(BuildError, match="Move it away"):
        activate(build.workspace, "embedding", build.request.id)


def test_a_json_file_is_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "f.json", {"a": 1})
    write_json(tmp_path / "f.json", {"b": "반품"})
    assert json.loads((tmp_path / "f.json").read_text()) == {"b": "반품"}
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]


def test_a_recipe_that_the_held_out_texts_do_not_confirm_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The texts to choose with are easy to please; the held-out ones are not."""
    monkeypatch.setattr("modelbuild.prove.while_choosing", lambda thresholds: {})
    build = exported(tmp_path, overrides=PERFECTION)
    assert build.run(*STAGES)["recipe"] == "float32"
    gate = json.loads((build.released / "gate.json").read_text())
    assert gate["looks_at_held_out"] == len(gate["attempts"]) >= 3
    assert all(attempt["held_out"]["queries"] >= 300 for attempt in gate["attempts"])


def test_the_float_graph_is_kept_when_asked_for(tmp_path: Path) -> None:
    build = exported(tmp_path)
    kept = dataclasses.replace(build, request=dataclasses.replace(build.request, keep_float=True))
    kept.run(*STAGES)
    for name in ("float/model.onnx", "float/model.onnx.data"):
        assert (kept.released / name).stat().st_mode & 0o777 == 0o444
        assert name in kept.manifest["files"]
    assert kept.manifest["file"] == "model.int8.onnx"


def prebuilt(folder: Path, overrides: dict[str, Any]) -> Build:
    """A build of a repository's own graph with its tensors in several files, none of it fusable."""
    source = tiny_graphs.write_model(folder / "source", inputs=tiny_graphs.ALL_INPUTS)
    tiny_graphs.keep_tensors_beside(source / "model.onnx")
    content = tiny_graphs.profile(
        source={"type": "folder", "path": str(source)}, route="prebuilt", file="model.onnx", pooling=None
    )
    (folder / "profile.json").write_text(json.dumps(content))
    workspace = Workspace(folder / "models", folder / "cache", folder / "state")
    profile = parse_profile(content)
    fetch(workspace, profile)
    request = make_request(profile, {**LENIENT, **ANYTHING, **overrides}, keep_float=True)
    return Build(workspace, request, folder / "profile.json")


@pytest.mark.parametrize(("overrides", "file"), [({}, "model.int8.onnx"), ({"max_time_ratio": 1e-6}, "model.onnx")])
def test_a_graph_with_its_tensors_in_several_files_becomes_a_release_with_one(
    tmp_path: Path, overrides: dict[str, Any], file: str
) -> None:
    build = prebuilt(tmp_path, overrides)
    build.run("export", *STAGES)
    names = {path.name for path in build.released.iterdir() if path.name.startswith("model")}
    assert build.manifest["file"] == file
    assert names == {file, f"{file}.data"} <= set(build.manifest["files"])
    assert build.manifest["sizes"]["int8_bytes"] > (build.released / file).stat().st_size
    moved = build.released.rename(tmp_path / "elsewhere")
    assert golden.check(Embedder(moved)) > 0.999
    assert stat.S_IMODE((moved / f"{file}.data").stat().st_mode) == 0o444


@pytest.mark.parametrize("overrides", [{"min_mean_cosine": 1.5}, {"max_drift": -0.1}, {"min_cosine": True}])
def test_a_threshold_that_nothing_reaches_is_refused(overrides: dict[str, Any]) -> None:
    name = next(iter(overrides))
    with pytest.raises(BuildError, match=f"Thresholds: {name} is"):
        make_request(parse_profile(tiny_graphs.profile()), overrides)
