"""Which release of several is served, and what is said about those that cannot be."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import flip, prove_elsewhere, remove, truncate
from tiny_graphs import write_model

from pipeline.cpu import detect
from pipeline.embedder import Embedder
from pipeline.errors import ModelError
from pipeline.loading import Loader
from pipeline.reranker import Reranker


def release(folder: Path, kind: str = "reranker", **manifest: Any) -> Path:
    return write_model(folder, kind, manifest={"id": folder.name, **manifest})


def rerankers() -> Loader[Reranker]:
    return Loader("reranker", Reranker)


def served(loader: Loader[Reranker] | Loader[Embedder]) -> str | None:
    return loader.model.release_id if loader.model else None


def restate(folder: Path, name: str) -> None:
    """Let the manifest state the file as it is now."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_wanted_release_serves_while_it_is_whole(tmp_path: Path) -> None:
    loader = rerankers()
    loader.choose([release(tmp_path / "wanted"), release(tmp_path / "previous")])
    assert (served(loader), loader.degraded) == ("wanted", None)


@pytest.mark.parametrize("damage", [flip, truncate, remove])
@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_with_a_damaged_file_the_next_one_serves(tmp_path: Path, damage: Callable[[Path], None], name: str) -> None:
    wanted, previous = release(tmp_path / "wanted"), release(tmp_path / "previous")
    damage(wanted / name)
    loader = rerankers()
    loader.choose([wanted, previous])
    assert served(loader) == "previous"
    assert loader.degraded is not None
    for part in (str(wanted), name, "previous serves instead", "playbooks/models.yml", "reranker"):
        assert part in loader.degraded


def test_files_in_folders_of_a_release_count_too(tmp_path: Path) -> None:
    wanted = release(tmp_path / "wanted")
    (wanted / "float").mkdir()
    (wanted / "float" / "model.onnx").write_bytes(b"float")
    restate(wanted, "float/model.onnx")
    assert rerankers().choose([wanted])
    flip(wanted / "float" / "model.onnx")
    loader = rerankers()
    loader.choose([wanted])
    assert f"{wanted}/float/model.onnx was damaged" in str(loader.degraded)


def test_a_damaged_file_is_told_by_what_was_found_and_expected(tmp_path: Path) -> None:
    wanted = release(tmp_path / "wanted")
    expected = hashlib.sha256((wanted / "model.onnx").read_bytes()).hexdigest()[:12]
    truncate(wanted / "model.onnx")
    found = hashlib.sha256((wanted / "model.onnx").read_bytes()).hexdigest()[:12]
    size = (wanted / "model.onnx").stat().st_size
    loader = rerankers()
    assert loader.choose([wanted]) is None
    assert f"it has {size} bytes with sha256 {found}…, its manifest.json states sha256 {expected}…" in str(
        loader.degraded
    )
    assert "nothing is reranked" in str(loader.degraded)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds a list"),
        ('{"schema": 1, "kind": "reranker"}', "states no usable id, profile, file, output, max_length"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_damage(tmp_path: Path, content: str, complaint: str) -> None:
    wanted = release(tmp_path / "wanted")
    (wanted / "manifest.json").write_text(content)
    loader = rerankers()
    loader.choose([wanted, release(tmp_path / "previous")])
    assert served(loader) == "previous"
    assert complaint in str(loader.degraded)


def test_a_served_file_without_a_stated_hash_is_refused(tmp_path: Path) -> None:
    loader = rerankers()
    assert loader.choose([release(tmp_path / "wanted", files={"model.onnx": "…"})]) is None
    assert "states no sha256 of tokenizer.json" in str(loader.degraded)


def test_a_file_the_disk_does_not_give_back_is_refused(tmp_path: Path) -> None:
    wanted = release(tmp_path / "wanted")
    (wanted / "model.onnx").unlink()
    (wanted / "model.onnx").symlink_to("/proc/self/mem")  # its first byte cannot be read
    loader = rerankers()
    loader.choose([wanted, release(tmp_path / "previous")])
    assert served(loader) == "previous"
    assert "cannot be read (Input/output error)" in str(loader.degraded)


def test_a_release_of_another_kind_never_serves(tmp_path: Path) -> None:
    loader = rerankers()
    assert loader.choose([tmp_path / "missing", release(tmp_path / "previous", "embedding")]) is None
    assert "there is no such model" in str(loader.degraded)
    assert "previous: is of kind embedding, expected reranker." in str(loader.degraded)


def test_a_bare_folder_states_nothing_and_serves(tmp_path: Path) -> None:
    loader = rerankers()
    loader.choose([write_model(tmp_path / "bare", "reranker")])
    assert loader.model is not None and loader.degraded is None


def test_what_is_needed_and_not_there_is_an_error(tmp_path: Path) -> None:
    wanted = release(tmp_path / "wanted", "embedding")
    remove(wanted / "tokenizer.json")
    with pytest.raises(ModelError, match=r"No other release of its embedding space can take its place"):
        Loader("embedding", Embedder).need([wanted])


def test_a_mended_release_is_taken_and_what_serves_is_kept_until_then(tmp_path: Path) -> None:
    wanted, previous = release(tmp_path / "wanted"), release(tmp_path / "previous")
    content = (wanted / "model.onnx").read_bytes()
    flip(wanted / "model.onnx")
    loader = rerankers()
    first = loader.choose([wanted, previous])
    assert loader.choose([wanted, previous]) is first
    (wanted / "model.onnx").write_bytes(content)
    loader.choose([wanted, previous])
    assert (served(loader), loader.degraded) == ("wanted", None)


@pytest.mark.parametrize("kind", ["embedding", "reranker"])
@pytest.mark.parametrize("there", [{"cpu": "x86-none"}, {"cpu": detect().name, "onnxruntime": "1.0.0"}])
def test_proven_elsewhere_and_right_here_it_serves(tmp_path: Path, kind: str, there: dict[str, str]) -> None:
    wanted = release(tmp_path / "wanted", kind)
    prove_elsewhere(wanted, agrees=True, **there)
    loader = Loader(kind, Embedder) if kind == "embedding" else rerankers()
    loader.choose([wanted])
    assert (served(loader), loader.degraded) == ("wanted", None)


@pytest.mark.parametrize("kind", ["embedding", "reranker"])
@pytest.mark.parametrize("there", [{"cpu": "x86-none"}, {"cpu": detect().name, "onnxruntime": "1.0.0"}])
def test_proven_elsewhere_and_wrong_here_is_like_damage(tmp_path: Path, kind: str, there: dict[str, str]) -> None:
    wanted, previous = release(tmp_path / "wanted", kind), release(tmp_path / "previous", kind)
    prove_elsewhere(wanted, agrees=False, **there)
    loader = Loader(kind, Embedder) if kind == "embedding" else rerankers()
    loader.choose([wanted, previous])
    assert served(loader) == "previous"
    assert "this machine's results agree only to" in str(loader.degraded)


@pytest.mark.parametrize("golden", [[], [{"query": "a"}], [{"query": "a", "text": "b", "score": "high"}]])
def test_proven_elsewhere_without_usable_golden_results_is_refused(tmp_path: Path, golden: list[Any]) -> None:
    loader = rerankers()
    assert loader.choose([release(tmp_path / "wanted", cpu={"class": "x86-none"}, golden=golden)]) is None
    assert "golden results" in str(loader.degraded)


def test_what_was_wrong_is_not_loaded_again_before_its_files_change(tmp_path: Path) -> None:
    wanted = release(tmp_path / "wanted")
    prove_elsewhere(wanted, agrees=False)
    made: list[Path] = []

    def make(folder: Path) -> Reranker:
        made.append(folder)
        return Reranker(folder)

    loader = Loader("reranker", make)
    assert [loader.choose([wanted]) for _ in range(3)] == [None] * 3
    assert len(made) == 1
    prove_elsewhere(wanted, agrees=True)
    assert loader.choose([wanted]) is not None
    assert len(made) == 2
