"""What the pipeline reads off a model folder, and whether a release still computes what was proven."""

import json
from pathlib import Path

import onnxruntime
import pytest
from tiny_graphs import write_model

from pipeline import golden
from pipeline.cpu import detect
from pipeline.embedder import Embedder
from pipeline.errors import ModelError
from pipeline.manifest import read_folder
from pipeline.reranker import Reranker


def test_a_bare_folder_serves_its_int8_file_first(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.int8.onnx").write_bytes(b"")
    assert read_folder(folder, "embedding").file.name == "model.int8.onnx"


def test_the_name_of_an_e5_model_brings_its_prefixes(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    for name in ("intfloat/multilingual-e5-small", "demo-multilingual-e5-small", "intfloat/e5-base-v2"):
        assert read_folder(folder, "embedding", name).prefixes == {"query": "query: ", "passage": "passage: "}
    for name in ("sentence-transformers/all-MiniLM-L6-v2", "acme/route5-small", ""):
        assert read_folder(folder, "embedding", name).prefixes == {}


def test_prompts_stated_by_a_bare_folder_are_its_prefixes(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "ask: ", "document": ""}}')
    assert read_folder(folder, "embedding").prefixes == {"query": "ask: ", "passage": ""}


def test_the_smallest_stated_length_holds(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert read_folder(folder, "embedding").max_length == 512
    (folder / "config.json").write_text('{"max_position_embeddings": 514}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    assert read_folder(folder, "embedding").max_length == 128


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        read_folder(folder, "embedding")


def test_a_manifest_of_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="schema 9"):
        read_folder(write_model(tmp_path / "m", manifest={"schema": 9}), "embedding")


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", manifest={})
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx, which is missing"):
        read_folder(folder, "embedding")


def _proven(folder: Path, golden_results: list[dict[str, object]]) -> Path:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["golden"] = golden_results
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_the_machine_that_proved_a_release_is_recognised() -> None:
    manifest = {"cpu": {"class": detect().name}, "versions": {"onnxruntime": onnxruntime.__version__}}
    assert golden.proven_here(manifest)
    assert not golden.proven_here({**manifest, "cpu": {"class": "x86-none"}})
    assert not golden.proven_here({**manifest, "versions": {"onnxruntime": "1.0.0"}})


def test_golden_vectors_pass_where_they_were_made(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", manifest={})
    vector = golden.pack(Embedder(folder).encode_array(["hello"])[0])
    _proven(folder, [{"text": "hello", "input_type": "query", "vector16": vector}])
    assert golden.check(Embedder(folder)) > 0.9999


def test_golden_vectors_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", manifest={})
    vector = golden.pack(Embedder(folder).encode_array(["another text"])[0])
    _proven(folder, [{"text": "hello", "input_type": "query", "vector16": vector}])
    with pytest.raises(ModelError, match=r"tiny-1: this machine's results agree only to 0\."):
        golden.check(Embedder(folder))


def test_golden_scores_are_compared_for_rerankers(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", "reranker", manifest={})
    score = Reranker(folder).score("a", ["b"])[0]
    assert score is not None
    assert golden.check(Reranker(_proven(folder, [{"query": "a", "text": "b", "score": score}]))) > 0.9999
    with pytest.raises(ModelError):
        golden.check(Reranker(_proven(folder, [{"query": "a", "text": "b", "score": score + 0.1}])))
