"""What a model takes of memory, told before it is loaded."""

from pathlib import Path

import pytest
import tiny_models

from pipeline import cgroup, footprint


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    return (
        tiny_models.write_embedding_release(tmp_path, revision="1"),
        tiny_models.write_embedding_release(tmp_path, revision="2"),
    )


def test_weights_and_tokenizer_count_wherever_the_weights_lie(models: tuple[Path, Path]) -> None:
    before = footprint.of(models[0])
    (models[0] / "model.onnx.data").write_bytes(bytes(1 << 20))
    assert footprint.of(models[0]) - before == int((1 << 20) * footprint.WEIGHTS)
    assert footprint.of(models[0] / "model.onnx") == footprint.of(models[0])


def test_an_equal_tokenizer_is_there_once(models: tuple[Path, Path]) -> None:
    one, other = models
    tokenizer = int((one / "tokenizer.json").stat().st_size * footprint.TOKENIZER)
    assert footprint.of(one) - footprint.of(one, [other]) == tokenizer
    (other / "tokenizer.json").write_text("another", encoding="utf-8")
    assert footprint.of(one, [other]) == footprint.of(one)


def test_no_model_takes_nothing(tmp_path: Path) -> None:
    assert footprint.of(tmp_path) == footprint.of(tmp_path / "gone") == 0


def test_what_the_container_has_left_decides(models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    needed = footprint.of(models[0])
    for limit, lacking in ((None, False), (100 + needed, False), (99 + needed, True)):
        monkeypatch.setattr(cgroup, "memory", lambda limit=limit: cgroup.Memory(used=100, limit=limit))
        assert bool(footprint.lacks(models[0])) is lacking
