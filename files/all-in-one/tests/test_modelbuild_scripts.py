"""The original's command lines."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_graphs import write_model

import modelbuild
from modelbuild.errors import BuildError
from modelbuild.standalone import complete, describe_model, refuse_release
from pipeline.embedder import Embedder

SCRIPTS = Path(modelbuild.__file__).parent.parent / "scripts"


def run(script: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    interpreter = [] if script.endswith(".sh") else [sys.executable]
    command = [*interpreter, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A models folder whose emb is a link to a release."""
    write_model(tmp_path / "models" / "releases" / "tiny-1", manifest={})
    (tmp_path / "models" / "emb").symlink_to("releases/tiny-1")
    return tmp_path / "models"


def test_quantise_takes_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    done = run("quantize_onnx.py", "--in", folder / "model.onnx", "--out", folder / "small.onnx", "--per_channel")
    assert done.returncode == 0, done.stderr
    exact, rounded = (Embedder(folder / name).encode_array(["hello"])[0] for name in ("model.onnx", "small.onnx"))
    assert exact @ rounded > 0.99


def test_quantise_takes_folders_and_brings_the_tokenizer_along(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "float")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert run("quantize_onnx.py", "--in", folder, "--out", tmp_path / "int8").returncode == 0
    assert sorted(path.name for path in (tmp_path / "int8").iterdir()) == [
        "1_Pooling",
        "config.json",
        "model.int8.onnx",
        "tokenizer.json",
    ]
    assert Embedder(tmp_path / "int8").dim == 32


def test_quantise_in_place_writes_beside_the_float_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    assert run("quantize_onnx.py", "--in", folder, "--out", folder).returncode == 0
    assert (folder / "model.onnx").is_file()
    assert (folder / "model.int8.onnx").is_file()


def test_quantise_names_what_is_missing(tmp_path: Path) -> None:
    done = run("quantize_onnx.py", "--in", tmp_path / "nothing.onnx", "--out", tmp_path / "o.onnx")
    assert (done.returncode, "nothing.onnx does not exist" in done.stderr) == (1, True)


def test_quantise_refuses_a_release_also_through_a_link(released: Path, tmp_path: Path) -> None:
    source = write_model(tmp_path / "float")
    for out in (released / "emb", released / "emb" / "model.onnx", released / "releases" / "new"):
        done = run("quantize_onnx.py", "--in", source, "--out", out)
        assert done.returncode == 1
        assert "below releases/" in done.stderr
        assert "python -m modelbuild build" in done.stderr
    assert [path.name for path in (released / "releases").iterdir()] == ["tiny-1"]
    assert not (released / "emb" / "model.int8.onnx").exists()


def test_verify_says_what_an_embedding_computes(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    done = run("verify_onnx.py", "emb", folder, "반품 정책은?")
    assert "dimension  32" in done.stdout
    assert "length     1.0000" in done.stdout
    first = Embedder(folder).encode_array(["반품 정책은?"])[0]
    assert f"vector     {first[0]:.4f}" in done.stdout


def test_verify_ranks_with_a_reranker(tmp_path: Path) -> None:
    done = run("verify_onnx.py", "rerank", write_model(tmp_path / "m", "reranker"), "capital of France")
    assert "query      capital of France" in done.stdout
    scores = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("score")]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)


def test_verify_fails_on_a_folder_that_cannot_be_served(tmp_path: Path) -> None:
    done = run("verify_onnx.py", "emb", tmp_path / "nothing", EMBED_FALLBACK="sentence-transformers", EMBED_MODEL="x")
    assert done.returncode == 1
    assert "there is no such model" in done.stderr
    assert "Traceback" not in done.stderr


def test_verify_fails_when_every_irrelevant_text_wins(tmp_path: Path) -> None:
    import onnx  # noqa: PLC0415
    from onnx import numpy_helper  # noqa: PLC0415

    # A constant answer prefers nothing.
    folder = write_model(tmp_path / "m", "reranker")
    model = onnx.load(str(folder / "model.onnx"))
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "head")
    head.CopyFrom(numpy_helper.from_array(np.zeros((32, 1), np.float32), "head"))
    onnx.save(model, str(folder / "model.onnx"))
    done = run("verify_onnx.py", "rerank", folder)
    assert done.returncode == 1
    assert "irrelevant texts score above" in done.stdout


def test_export_takes_its_values_as_arguments_and_as_environment(released: Path) -> None:
    for done in (
        run("export_onnx.sh", f"OUT_DIR={released}"),
        run("export_onnx.sh", OUT_DIR=str(released)),
        run("export_onnx.sh", f"OUT_DIR={released}", OUT_DIR="/nonexistent/elsewhere"),
    ):
        assert done.returncode == 1
        assert f"{released}/emb is {released.resolve()}/releases/tiny-1, below releases/" in done.stderr


def test_export_refuses_a_release_through_a_linked_folder(released: Path, tmp_path: Path) -> None:
    (tmp_path / "innocent").symlink_to(released / "releases")
    done = run("export_onnx.sh", f"OUT_DIR={tmp_path}/innocent/new")
    assert done.returncode == 1
    assert "below releases/" in done.stderr


def test_export_explains_itself() -> None:
    done = run("export_onnx.sh", "--help")
    assert done.returncode == 0
    for name in ("EMBED_MODEL", "RERANK_MODEL", "OUT_DIR"):
        assert name in done.stdout
    wrong = run("export_onnx.sh", "--model", "x")
    assert (wrong.returncode, "KEY=VALUE" in wrong.stderr) == (1, True)


def test_export_says_how_to_get_pytorch_where_there_is_none(tmp_path: Path) -> None:
    bare = tmp_path / "python-without-torch"
    bare.write_text(f'#!/bin/sh\ncase "$*" in *torch*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    bare.chmod(0o755)
    done = run("export_onnx.sh", f"OUT_DIR={tmp_path}/o", f"PYTHON={bare}", f"VENV={tmp_path}/venv")
    assert done.returncode == 1
    assert "apt-get install python3-torch" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_model_is_a_demo_name_a_folder_or_a_pinned_hub_name(tmp_path: Path) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    assert describe_model("embedding", "demo-multilingual-e5-small").source == {"type": "demo", "builder": "e5"}
    assert describe_model("embedding", str(tmp_path)).source == {"type": "folder", "path": str(tmp_path)}
    hub = describe_model("reranker", f"owner/name@{revision}")
    assert hub.source == {"type": "hub", "repository": "owner/name", "revision": revision}
    assert hub.route == "transformers"
    assert describe_model("reranker", f"jinaai/jina-reranker-v2-base-multilingual@{revision}").route == "prebuilt"
    with pytest.raises(BuildError, match="no folder here, no demo model"):
        describe_model("embedding", "e5")


def test_the_snapshot_completes_what_a_name_does_not_say(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    profile = complete(describe_model("embedding", str(folder)), folder)
    assert (profile.dimension, profile.max_length) == (32, 128)
    (folder / "modules.json").write_text('[{"idx": 0, "path": ""}, {"idx": 1, "path": "2_Dense"}]')
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text('{"in_features": 32, "out_features": 16}')
    assert complete(profile, folder).dimension == 16


def test_other_folders_are_free_to_write(tmp_path: Path) -> None:
    refuse_release(tmp_path / "emb")
    refuse_release(tmp_path / "releases-of-mine")
