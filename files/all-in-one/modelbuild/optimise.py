"""optimise: attention fused into one operator, before quantising, with proof that it really happened.

Fusion makes INT8 both faster and closer to float (the attention's inner products stay float), but where a pattern does
not match, nothing fails by itself: a graph that is only partly fused comes out.
"""

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

from modelbuild.candidate import candidate_folder
from modelbuild.errors import BuildError
from modelbuild.fidelity import compare, fidelity_texts, results
from modelbuild.graph import (
    EXTERNAL_ABOVE,
    FUSABLE,
    layers_and_shape,
    make_readable,
    remove_graph,
    save_graph,
    weight_bytes,
)
from modelbuild.profile import Profile
from modelbuild.progress import in_words, say
from modelbuild.request import Request
from modelbuild.workspace import Workspace, finished, place, read_json, stage


def optimise(workspace: Workspace, request: Request) -> dict[str, Any]:
    """Write STAGING/fused/: the float graph that is quantised, and served where INT8 fails its gate."""
    staging = workspace.staging(request.id)
    source = finished(staging / "float", "export")
    output = str(read_json(source / "done.json")["output"])
    return stage(staging / "fused", lambda folder: optimise_folder(source, request.profile, folder, output))


def optimise_folder(
    source: Path, profile: Profile, out: Path, output: str, *, one_file: bool = False
) -> dict[str, Any]:
    """Fuse SOURCE/model.onnx into OUT/model.onnx; {"attention", "layers", "fused", "why", "versus_export"}.

    Its tensors are in OUT/model.onnx.data, or with `one_file` in the graph itself as long as they fit in.
    """
    one_file = one_file and weight_bytes(source / "model.onnx") <= EXTERNAL_ABOVE
    for name in ("tokenizer.json", "config.json"):
        place(source / name, out / name)
    config = read_json(source / "config.json")
    family = str(config.get("model_type", ""))
    layers, heads, hidden = layers_and_shape(config)
    if family not in FUSABLE:
        why = f"fusion does not know the architecture {family or 'of config.json'!r}"
        return _leave_unfused(source, out, why, layers, one_file)
    attention = _fuse(source / "model.onnx", out / "model.onnx", heads, hidden, one_file)
    if attention != layers:
        why = f"attention fused in {attention} of {layers} layers"
        if profile.route != "prebuilt":
            raise BuildError(
                f"{profile.name}: {why}. The graph has another shape than this exporter's: build with the "
                "locked versions (modelbuild/requirements.txt) in a fresh environment."
            )
        return _leave_unfused(source, out, f"{why}: the repository's own graph has another shape", layers, one_file)
    texts = fidelity_texts(profile)
    candidate_folder(out, profile, "model.onnx", output)
    figures = compare(profile, results(out, profile, texts), results(source, profile, texts), "the fused graph")
    say("optimise", f"attention fused in {attention} of {layers} layers, {in_words(figures)}")
    return {
        "attention": attention,
        "layers": layers,
        "fused": True,
        "why": None,
        "output": output,
        "versus_export": figures,
    }


def _leave_unfused(source: Path, out: Path, why: str, layers: int, one_file: bool) -> dict[str, Any]:
    import onnx  # noqa: PLC0415

    save_graph(onnx.load(str(source / "model.onnx")), out / "model.onnx", one_file=one_file)
    say("optimise", f"left as it is: {why}")
    return {"attention": 0, "layers": layers, "fused": False, "why": why, "versus_export": None}


def _fuse(source: Path, target: Path, heads: int, hidden: int, one_file: bool) -> int:
    """Fuse and save; returns how many attention layers became one operator."""
    from onnxruntime.transformers.fusion_options import FusionOptions  # noqa: PLC0415
    from onnxruntime.transformers.optimizer import optimize_model  # noqa: PLC0415

    options = FusionOptions("bert")
    # A fused embedding layer would hide its table from the quantiser, and the table is most of a multilingual model.
    options.enable_embed_layer_norm = False
    # It says that symbolic shapes were not inferred, by loggers whose names depend on how it is imported; the count of
    # fused layers is what tells.
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()):
        model = optimize_model(
            str(source),
            model_type="bert",
            num_heads=heads,
            hidden_size=hidden,
            opt_level=0,
            optimization_options=options,
        )
        remove_graph(target)
        model.save_model_to_file(str(target), use_external_data_format=not one_file)
    make_readable(target)
    logging.disable(logging.NOTSET)
    return int(model.get_fused_operator_statistics()["Attention"])
