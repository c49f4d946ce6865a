#!/usr/bin/env python3
"""Make a float ONNX model INT8, dynamically, in the form this machine's CPU computes right.

--in and --out are .onnx files, or folders: a folder's model.onnx becomes model.int8.onnx, and the tokenizer and
configuration go along. Needs an environment with onnx and onnxruntime, such as the one export_onnx.sh makes.
"""

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modelbuild.errors import BuildError
from modelbuild.progress import say
from modelbuild.standalone import COMPANIONS, refuse_release
from pipeline.cpu import detect

INPUT, OUTPUT = "model.onnx", "model.int8.onnx"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in", dest="source", type=Path, required=True, help="float model: a file or a folder")
    parser.add_argument("--out", dest="target", type=Path, required=True, help="INT8 model: a file or a folder")
    parser.add_argument("--per_channel", "--per-channel", action="store_true", help="one scale a column, not a matrix")
    options = parser.parse_args()
    try:
        quantise_plain(options.source, options.target, per_channel=options.per_channel)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def quantise_plain(source: Path, target: Path, *, per_channel: bool) -> None:
    """Quantise `source` to `target` for this machine's CPU class."""
    refuse_release(target)
    source_file = source / INPUT if source.is_dir() else source
    target_file = target if target.suffix == ".onnx" else target / OUTPUT
    if not source_file.is_file():
        raise BuildError(f"--in: {source_file} does not exist. Export a model first (export_onnx.sh).")
    if source_file.resolve() == target_file.resolve():
        raise BuildError(f"--out: {target_file} is the input itself. Name another file.")
    try:
        from modelbuild.graph import files_of, weight_bytes  # noqa: PLC0415
        from modelbuild.quantise import quantise_file, recipe_for  # noqa: PLC0415

        target_file.parent.mkdir(parents=True, exist_ok=True)
        recipe = replace(recipe_for(detect()), per_channel=per_channel)
        sizes = [weight_bytes(source_file)]
        with tempfile.TemporaryDirectory(prefix=f".{target_file.name}.", dir=target_file.parent) as scratch:
            # Under its final name: a graph names the file of its tensors.
            partial = Path(scratch) / target_file.name
            quantise_file(source_file, partial, recipe, one_file=True)
            for path in reversed(files_of(partial)):
                path.replace(target_file.with_name(path.name))
        sizes.append(weight_bytes(target_file))
    except ModuleNotFoundError as error:
        raise BuildError(
            f"The package {error.name} is missing in {sys.prefix}. Run this script with the Python of an environment "
            "that has modelbuild/requirements.txt installed; export_onnx.sh makes one and prints its path."
        ) from error
    if source_file.parent.resolve() != target_file.parent.resolve():
        _copy_companions(source_file.parent, target_file.parent)
    say("quantise", f"{target_file}: {recipe.name}, {sizes[0] / 1e6:.0f} MB to {sizes[1] / 1e6:.0f} MB")


def _copy_companions(source: Path, target: Path) -> None:
    for name in COMPANIONS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        elif (source / name).is_file():
            shutil.copyfile(source / name, target / name)


if __name__ == "__main__":
    sys.exit(main())
