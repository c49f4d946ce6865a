"""Texts to vectors, with real graphs."""

import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from busy import at_work
from tiny_graphs import ALL_INPUTS, write_model

from pipeline.embedder import Embedder
from pipeline.errors import ModelError, TooLongError

PREFIXES = {"prefixes": {"query": "q: ", "passage": "p: "}, "default_input_type": "query", "normalize": True}


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMBED_MODEL", "EMBED_ONNX_PATH", "EMBED_ONNX_DIR", "EMBED_FALLBACK"):
        monkeypatch.delenv(name, raising=False)


def test_it_feeds_the_token_types_that_a_graph_demands(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", inputs=ALL_INPUTS)
    assert len(Embedder(folder).encode(["hello"])[0]) == 32


def test_it_feeds_nothing_that_a_graph_does_not_declare(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", inputs=("input_ids",))
    assert len(Embedder(folder).encode(["hello"])[0]) == 32


def test_it_refuses_a_graph_with_an_unknown_input_by_name(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", inputs=("input_ids", "pixel_values"))
    with pytest.raises(ModelError, match="pixel_values"):
        Embedder(folder)


def test_vectors_come_in_the_callers_order(tmp_path: Path) -> None:
    embedder = Embedder(write_model(tmp_path / "m"), threads=3)
    texts = [random.Random(number).choice("abcdef") * (1 + number * 7 % 50) for number in range(40)]
    alone = [embedder.encode([text])[0] for text in texts]
    assert embedder.encode(texts) == alone


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx"])
def test_a_vector_is_the_same_bits_alone_and_among_others(tmp_path: Path, file: str) -> None:
    folder = write_model(tmp_path / "m", inputs=ALL_INPUTS)
    if file == "model.int8.onnx":
        from modelbuild.quantise import Recipe, quantise_file  # noqa: PLC0415

        quantise_file(folder / "model.onnx", folder / file, Recipe("int8-7bit"))
    embedder = Embedder(folder / file, threads=2)
    texts = ["short", "a much longer text, " * 20, "반품 정책은 어떻게 되나요?", ""]
    together = embedder.encode_array(texts)
    for text, vector in zip(texts, together, strict=True):
        assert (embedder.encode_array([text])[0] == vector).all()


def test_the_prefix_of_the_input_type_is_added(tmp_path: Path) -> None:
    with_prefix = Embedder(write_model(tmp_path / "a", manifest={"profile": PREFIXES}))
    without = Embedder(write_model(tmp_path / "b", manifest={"profile": {}}))
    for input_type, prefix in (("query", "q: "), ("passage", "p: "), (None, "q: ")):
        vector = with_prefix.encode(["text"], input_type=input_type)
        assert vector == without.encode([prefix + "text"])
        assert with_prefix.count_tokens("text", input_type=input_type) == without.count_tokens(prefix + "text")


def test_an_unknown_input_type_is_refused(tmp_path: Path) -> None:
    embedder = Embedder(write_model(tmp_path / "m"))
    with pytest.raises(ValueError, match="document"):
        embedder.encode(["text"], input_type="document")


def test_a_long_text_is_cut_and_said_to_be(tmp_path: Path) -> None:
    embedder = Embedder(write_model(tmp_path / "m", manifest={}))
    info = embedder.encode_with_info(["x" * 62, "x" * 63, "x" * 500])
    assert info.tokens == [64, 64, 64]
    assert info.truncated == [False, True, True]
    assert (info.vectors[1] == info.vectors[2]).all()
    assert embedder.count_tokens("x" * 500) == 502


def test_the_public_tokenizer_does_not_truncate(tmp_path: Path) -> None:
    embedder = Embedder(write_model(tmp_path / "m", manifest={}))
    assert len(embedder.tokenizer.encode("x" * 500).ids) == 502


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_graph_without_pooling_is_pooled_as_the_profile_says(tmp_path: Path, pooling: str) -> None:
    manifest = {"profile": {"pooling": pooling, "normalize": False}}
    embedder = Embedder(write_model(tmp_path / "m", pooled=False, manifest=manifest))
    tokens = embedder.engine.run(embedder.tokenizer.encode("hello").ids)
    expected = tokens[0] if pooling == "cls" else tokens.mean(axis=0)
    assert np.allclose(embedder.encode_array(["hello"])[0], expected)


def test_vectors_have_unit_length_when_the_profile_normalises(tmp_path: Path) -> None:
    embedder = Embedder(write_model(tmp_path / "m", pooled=False, manifest={"profile": {"normalize": True}}))
    assert np.allclose(np.linalg.norm(embedder.encode_array(["a", "bb"]), axis=1), 1.0, atol=1e-6)


def test_no_texts_give_no_vectors(tmp_path: Path) -> None:
    embedder = Embedder(write_model(tmp_path / "m"))
    assert embedder.encode([]) == []
    assert embedder.encode_array([]).shape == (0, 32)


def test_a_text_instead_of_a_list_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="list"):
        Embedder(write_model(tmp_path / "m")).encode("text")


def test_the_environment_names_the_folder_or_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "m", manifest={"id": "tiny-env"})
    monkeypatch.setenv("EMBED_ONNX_DIR", str(folder))
    assert Embedder().release_id == "tiny-env"
    monkeypatch.setenv("EMBED_ONNX_PATH", str(folder / "model.onnx"))
    assert Embedder().dim == 32


def test_a_link_is_read_once_so_that_a_switch_does_not_mix_releases(tmp_path: Path) -> None:
    write_model(tmp_path / "releases" / "one", manifest={"id": "one"})
    (tmp_path / "emb").symlink_to("releases/one")
    folder = Embedder(tmp_path / "emb").folder
    assert folder is not None
    assert folder.folder == (tmp_path / "releases" / "one").resolve()


def test_without_a_model_the_error_names_the_variable() -> None:
    with pytest.raises(ModelError, match="EMBED_ONNX_DIR"):
        Embedder()


def test_a_dimension_other_than_the_manifests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gives 32 dimensions"):
        Embedder(write_model(tmp_path / "m", manifest={"dimension": 384}))


def test_the_fallback_needs_a_model_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBED_FALLBACK", "sentence-transformers")
    with pytest.raises(ModelError, match="EMBED_MODEL"):
        Embedder()


def test_either_lane_and_a_run_on_all_cores_give_the_same_bits(tmp_path: Path) -> None:
    from modelbuild.quantise import Recipe, quantise_file  # noqa: PLC0415

    folder = write_model(tmp_path / "m", inputs=ALL_INPUTS)
    quantise_file(folder / "model.onnx", folder / "model.int8.onnx", Recipe("int8-7bit"))
    embedder = Embedder(folder / "model.int8.onnx", threads=2)
    ids = embedder.tokenizer.encode("반품 정책은 어떻게 되나요?").ids
    assert (embedder.engine.run(ids) == embedder.engine.run(ids, wide=True)).all()
    texts = ["반품 정책은 어떻게 되나요?", "a much longer text, " * 20]
    by_lane = [embedder.encode_with_info(texts, lane=lane).vectors for lane in ("query", "bulk")]
    assert (by_lane[0] == by_lane[1]).all()
    assert (embedder.encode_with_info(texts[:1], lane="query").vectors[0] == by_lane[0][0]).all()


def test_only_a_question_that_is_alone_is_shared_among_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Embedder(write_model(tmp_path / "m"), threads=2)
    run, shared = embedder.engine.run, []

    def spy(ids: Sequence[int], *rest: Any, wide: bool = False) -> Any:
        shared.append(wide)
        return run(ids, *rest, wide=wide)

    monkeypatch.setattr(embedder.engine, "run", spy)
    embedder.encode(["반품 정책은 어떻게 되나요?"])
    embedder.encode(["a"])  # three tokens: too few to share
    embedder.encode(["반품 정책은 어떻게 되나요?", "and another one"])
    embedder.encode(["a long text, " * 400])  # bulk work
    with embedder.engine.lanes.query.job(1):
        embedder.encode(["반품 정책은 어떻게 되나요?"])
    assert shared == [True, False, False, False, False, False]


def test_a_question_is_tokenised_without_waiting_for_a_turn(tmp_path: Path) -> None:
    embedder = Embedder(write_model(tmp_path / "m"), threads=1)
    told = threading.Event()

    def ask() -> None:
        with pytest.raises(TooLongError):
            embedder.encode_with_info(["a " * 900], long_texts="refuse", lane="query")
        told.set()

    thread = threading.Thread(target=ask)
    with at_work(embedder.engine.lanes.query, 1):
        thread.start()
        assert told.wait(20)
    thread.join(30)


def test_much_text_is_bulk_work_and_little_a_querys(tmp_path: Path) -> None:
    embedder = Embedder(write_model(tmp_path / "m"), threads=2)
    lanes = embedder.engine.lanes
    embedder.encode(["short", "also short"])
    assert lanes.query.state()["tokens_per_second"] and not lanes.bulk.state()["tokens_per_second"]
    embedder.encode(["not short " * 40] * 10)
    assert lanes.bulk.state()["tokens_per_second"]


def test_a_long_text_can_be_refused_by_its_position(tmp_path: Path) -> None:
    embedder = Embedder(write_model(tmp_path / "m", manifest={}))
    with pytest.raises(TooLongError) as refusal:
        embedder.encode_with_info(["x", "x" * 63], long_texts="refuse")
    assert (refusal.value.index, refusal.value.tokens, refusal.value.limit) == (1, 65, 64)
    assert embedder.encode_with_info(["x" * 62], long_texts="refuse").truncated == [False]


def test_a_long_text_can_be_the_mean_of_its_windows(tmp_path: Path) -> None:
    embedder = Embedder(write_model(tmp_path / "m", manifest={"profile": PREFIXES}))
    size = 64 - 2 - len("p: ") - 1  # special tokens and the prefix; one token a byte, one in hand
    text = "abcdefghij" * 15
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    windows = embedder.encode_array(pieces, input_type="passage")
    mean = np.average(windows, axis=0, weights=[len(piece) for piece in pieces])
    info = embedder.encode_with_info(["short", text, "last"], input_type="passage", long_texts="windows")
    assert info.truncated == [False, False, False]
    assert info.tokens[1] == len(text) + len(pieces) * (2 + len("p: "))
    assert np.allclose(info.vectors[1], mean / np.linalg.norm(mean), atol=1e-6)
    alone = embedder.encode_array(["short", "last"], input_type="passage")
    assert (info.vectors[[0, 2]] == alone).all()


def test_models_with_equal_tokenizers_share_one(tmp_path: Path) -> None:
    first, second = (Embedder(write_model(tmp_path / name)) for name in "ab")
    assert first.tokenizer is second.tokenizer
