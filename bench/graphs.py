"""The models as the original bundle's scripts make them, made once and kept: plain export, plain dynamic INT8."""

import logging
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from bench.box import Box, manifest, profile_of
from modelbuild.progress import say

FLOAT, INT8 = "model.onnx", "model.int8.onnx"


def original_embedding(box: Box) -> Path:
    """Folder with the plain float graph (output: last_hidden_state) and its INT8 form."""
    snapshot = box.snapshot(box.embedding)
    return _once(box.work / "original" / manifest(box.embedding)["id"], lambda folder: _export(snapshot, folder))


def original_reranker(box: Box) -> Path | None:
    """As above for the reranker (output: logits); None where it is no plain graph that the original could have made."""
    profile = profile_of(box.reranker)
    if profile.route != "prebuilt":
        return None
    source = box.snapshot(box.reranker) / profile.file
    return _once(box.work / "original" / manifest(box.reranker)["id"], lambda folder: _take(source, folder))


def fastembed_folder(box: Box) -> Path:
    """The released file with what fastembed wants beside it: the tokenizer's configuration, which a release lacks."""
    snapshot = box.snapshot(box.embedding)

    def copy(folder: Path) -> None:
        shutil.copytree(box.embedding.resolve(), folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            shutil.copyfile(snapshot / name, folder / name)

    return _once(box.work / "fastembed" / manifest(box.embedding)["id"], copy)


def _once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, complete: made under another name, so that a killed run leaves nothing that looks finished."""
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(partial)
        partial.rename(folder)
    return folder


def _export(snapshot: Path, folder: Path) -> None:
    """What `optimum-cli export onnx --task feature-extraction` does, then the original's quantisation."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    from optimum.exporters.onnx import main_export  # noqa: PLC0415

    say("prepare", "exporting the plain float graph")
    main_export(
        str(snapshot), output=str(folder), task="feature-extraction", library_name="transformers", do_validation=False
    )
    _quantise(folder)


def _take(source: Path, folder: Path) -> None:
    shutil.copyfile(source, folder / FLOAT)
    _quantise(folder)


def _quantise(folder: Path) -> None:
    """The call of the original's quantize_onnx.py with --per_channel; all else is the library's default."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    say("prepare", "quantising it the original's way")
    # The quantiser's advice to run a pre-processing step: the original did not.
    logging.getLogger().setLevel(logging.ERROR)
    quantize_dynamic(str(folder / FLOAT), str(folder / INT8), weight_type=QuantType.QInt8, per_channel=True)
