"""Tokens of Unigram models are the library's, piece for piece, on whatever text."""

import json
import random

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from pipeline.unigram import LONGEST_KEPT, load_tokenizer
from tests.tiny_models import SAMPLE

SPECIAL = ["<s>", "</s>", "<unk>"]
UNKNOWN = "𓀀漢Ωж"


@pytest.fixture(scope="module")
def description() -> str:
    """A tokenizer.json in the way of XLM-RoBERTa's, with pieces of Korean and English."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    tokenizer.train_from_iterator(SAMPLE, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return str(tokenizer.to_str())


def texts(pieces: list[str]) -> list[str]:
    """Of pieces and letters in any order, known and unknown; long words, and what looks like a special token."""
    chance = random.Random(3)
    letters = sorted(set("".join(SAMPLE))) + list(UNKNOWN) + ["\t", "\u3000", "ｶﾞ", "각", "é"]
    made = [*SAMPLE, "", " ", "<unk>", "a<unk>b", "</s>반품<s>", UNKNOWN, UNKNOWN * 30, "반품" * LONGEST_KEPT]
    for _ in range(2000):
        made.append("".join(chance.choices(pieces, k=chance.randint(1, 30))).replace("▁", " "))
        made.append("".join(chance.choices(letters, k=chance.randint(1, 90))))
        made.append("".join(chance.choices(letters, k=chance.randint(1, 90))).replace(" ", ""))
    return made


def assert_same(description: str) -> None:
    library, ours = Tokenizer.from_str(description), load_tokenizer(description)
    for text in texts([piece for piece, _ in json.loads(description)["model"]["vocab"]]):
        expected, found = library.encode(text), ours.encode(text)
        assert (found.ids, found.offsets, found.type_ids) == (expected.ids, expected.offsets, expected.type_ids), text


def test_tokens_and_offsets_are_the_librarys(description: str) -> None:
    assert_same(description)


def test_of_equal_ways_the_librarys_is_chosen(description: str) -> None:
    changed = json.loads(description)
    # Every score a small whole number: many ways to cut a word are equal.
    changed["model"]["vocab"] = [[piece, float(round(score))] for piece, score in changed["model"]["vocab"]]
    assert_same(json.dumps(changed))


def test_words_are_cut_without_a_step_before(description: str) -> None:
    assert_same(json.dumps(json.loads(description) | {"pre_tokenizer": None}))


def test_pairs_are_put_together_as_by_the_library(description: str) -> None:
    library, ours = Tokenizer.from_str(description), load_tokenizer(description)
    expected, found = library.encode(SAMPLE[0], SAMPLE[1]), ours.encode(SAMPLE[0], SAMPLE[1])
    assert (found.ids, found.type_ids, found.offsets) == (expected.ids, expected.type_ids, expected.offsets)


@pytest.mark.parametrize("change", [{"byte_fallback": True}, {"unk_id": None}])
def test_what_is_not_understood_is_left_to_the_library(description: str, change: dict[str, object]) -> None:
    changed = json.loads(description)
    changed["model"] |= change
    assert load_tokenizer(json.dumps(changed)).to_str() == Tokenizer.from_str(json.dumps(changed)).to_str()
