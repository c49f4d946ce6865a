"""export: a float ONNX graph out of a snapshot, equal to the original model, or an error."""

import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from modelbuild.candidate import candidate_folder
from modelbuild.errors import BuildError
from modelbuild.fidelity import compare_with_reference, fidelity_texts
from modelbuild.graph import OUTPUTS, files_of, keep_output, single_output, weight_bytes
from modelbuild.profile import Profile
from modelbuild.progress import in_words, say
from modelbuild.request import Request
from modelbuild.snapshot import read_snapshot, snapshot_folder
from modelbuild.workspace import Workspace, read_json, stage

# Which of a model's attention implementations exports to a graph that onnxruntime's fusions know: for most families the
# plain one (the scaled-dot-product one of PyTorch does not fuse), for DistilBERT it is the other way round.
ATTENTION = "eager"
ATTENTION_OF = {"distilbert": "sdpa"}


def export(workspace: Workspace, request: Request) -> dict[str, Any]:
    """Write STAGING/float/: model.onnx, tokenizer.json, config.json. Returns sizes and agreement with the original."""
    staging = workspace.staging(request.id)
    snapshot = read_snapshot(snapshot_folder(workspace, request.profile, request.fingerprint))
    return stage(staging / "float", lambda folder: export_snapshot(snapshot.folder, request.profile, folder))


def export_snapshot(snapshot: Path, profile: Profile, out: Path) -> dict[str, Any]:
    """Export into the folder `out`; figures of the comparison with the original are returned."""
    if profile.route == "prebuilt":
        return _take_prebuilt(snapshot, profile, out)
    _prepare_libraries()
    _check_code(snapshot, profile)
    say("export", f"{profile.name} by the route {profile.route}")
    texts = fidelity_texts(profile)
    exporter = _export_embedding if profile.route == "sentence-transformers" else _export_transformers
    reference = exporter(snapshot, profile, out, texts)
    for name in ("tokenizer.json", "config.json"):
        shutil.copyfile(snapshot / name, out / name)
    output = OUTPUTS[profile.kind]
    keep_output(out / "model.onnx", output)
    figures = compare_with_reference(
        candidate_folder(out, profile, "model.onnx", output), profile, texts, reference, "the exported graph"
    )
    float_bytes = weight_bytes(out / "model.onnx")
    say("export", f"{float_bytes / 1e6:.0f} MB, {in_words(figures)}")
    return {"float_bytes": float_bytes, "output": output, "versus_original": figures}


def _export_embedding(snapshot: Path, profile: Profile, out: Path, texts: list[Any]) -> list[Any]:
    """Export with pooling, Dense and normalisation inside the graph; returns the original's vectors of `texts`."""
    from optimum.exporters.onnx import onnx_export_from_model  # noqa: PLC0415
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    model = SentenceTransformer(
        str(snapshot),
        device="cpu",
        local_files_only=True,
        trust_remote_code=profile.trusts_code,
        model_kwargs={"attn_implementation": _attention(snapshot), "torch_dtype": "float32"},
    )
    model.max_seq_length = profile.max_length
    dimension = model.get_embedding_dimension()
    if dimension != profile.dimension:
        raise BuildError(
            f"{profile.name}: the model gives {dimension} dimensions, the profile says {profile.dimension}."
        )
    model.default_prompt_name = None
    prefix = profile.prefixes.get(profile.default_input_type or "", "")
    reference = [model.encode(prefix + text, normalize_embeddings=profile.normalize) for text in texts]
    onnx_export_from_model(model, str(out), task="feature-extraction", do_validation=False)
    return reference


def _export_transformers(snapshot: Path, profile: Profile, out: Path, texts: list[Any]) -> list[Any]:
    """Export a cross-encoder's classification head; returns the original's logits of the pairs `texts`."""
    import torch  # noqa: PLC0415
    from optimum.exporters.onnx import onnx_export_from_model  # noqa: PLC0415
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415

    if profile.kind != "reranker":
        raise BuildError(f"{profile.name}: the route 'transformers' is for rerankers; embeddings take another.")
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": profile.trusts_code}
    model, report = AutoModelForSequenceClassification.from_pretrained(
        str(snapshot),
        attn_implementation=_attention(snapshot),
        torch_dtype=torch.float32,
        output_loading_info=True,
        **options,
    )
    if report["missing_keys"] or model.config.num_labels != 1:
        raise BuildError(
            f"{profile.name}: {model.config.num_labels} labels and missing weights {report['missing_keys']}, "
            "expected a trained cross-encoder with one label."
        )
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(str(snapshot), **options)
    reference = []
    with torch.no_grad():
        for query, document in texts:
            fed = tokenizer(
                query, document, truncation="only_second", max_length=profile.max_length, return_tensors="pt"
            )
            reference.append(float(model(**fed).logits.reshape(-1)[0]))
    onnx_export_from_model(model, str(out), task="text-classification", do_validation=False)
    return reference


def _attention(snapshot: Path) -> str:
    return ATTENTION_OF.get(str(read_json(snapshot / "config.json").get("model_type")), ATTENTION)


def _check_code(snapshot: Path, profile: Profile) -> None:
    """BuildError where the model exists only as the repository's own code, which the profile does not allow to run."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # noqa: PLC0415

    config = read_json(snapshot / "config.json")
    family = config.get("model_type")
    if not profile.trusts_code and family not in CONFIG_MAPPING_NAMES:
        owner = profile.source.get("repository", "the repository")
        raise BuildError(
            f"{profile.name}: its architecture {family!r} is not one of the exporter's, so code of {owner} would have "
            "to run. Read that code, then allow it with `remote_code: OWNER/NAME` in the profile, or take the "
            "repository's own ONNX file (route: prebuilt)."
        )


def _take_prebuilt(snapshot: Path, profile: Profile, out: Path) -> dict[str, Any]:
    """Take the repository's own ONNX file. There is no original to compare with: the hash is what is trusted."""
    source = snapshot / profile.file
    say("export", f"{profile.name}: taking the repository's own {profile.file}")
    _, *tensors = files_of(source)
    shutil.copyfile(source, out / "model.onnx")
    for path in tensors:
        # External tensors are found by the name the graph states, so names stay.
        target = out / path.relative_to(source.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for name in ("tokenizer.json", "config.json"):
        shutil.copyfile(snapshot / name, out / name)
    output = OUTPUTS[profile.kind]
    if profile.kind == "embedding":
        output = single_output(out / "model.onnx")
    keep_output(out / "model.onnx", output)
    candidate_folder(out, profile, "model.onnx", output)
    return {"float_bytes": weight_bytes(out / "model.onnx"), "output": output, "versus_original": None}


def _prepare_libraries() -> None:
    """Keep them quiet, and offline: what they would look for beside the snapshot is not pinned."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Their advice is for people who train; what is wrong with an export, the comparison afterwards finds.
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    for name in ("optimum", "sentence_transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch|transformers|sentence_transformers|optimum")
    warnings.filterwarnings("ignore", message=".*(Converting a tensor|torch_dtype|legacy TorchScript).*")
