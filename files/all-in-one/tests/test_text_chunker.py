"""Chunks: counted in the model's tokens, cut between sentences, with offsets that fit."""

from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.embedder import Embedder
from text import sentences
from text.chunker import Chunker

KOREAN = "반품은 7일 안에 할 수 있습니다. 환불은 카드로 처리됩니다. 배송비는 고객이 부담합니다. "
ENGLISH = "Returns are accepted within thirty days. Shipping is free for large orders. "


@pytest.fixture(scope="module")
def embedder(releases: Path) -> Embedder:
    return Embedder(releases / "emb", threads=1)


@pytest.fixture(scope="module")
def chunker(embedder: Embedder) -> Chunker:
    return Chunker(embedder)


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences.split(text)]


def test_a_short_text_is_one_chunk(chunker: Chunker) -> None:
    chunks = chunker.cut("  한 문장입니다. ")
    assert [(chunk.start, chunk.end, chunk.text) for chunk in chunks] == [(2, 10, "한 문장입니다.")]


@pytest.mark.parametrize("text", ["", "   \n\t "])
def test_a_text_without_words_has_no_chunk(chunker: Chunker, text: str) -> None:
    assert chunker.cut(text) == []


@pytest.mark.parametrize("text", [KOREAN * 30, ENGLISH * 30, (KOREAN + ENGLISH) * 15, "😀 이모지 " * 200, "가" * 3000])
def test_every_chunk_is_read_whole_by_the_model(chunker: Chunker, embedder: Embedder, text: str) -> None:
    title = "반품 정책"
    passages = [chunker.passage(title, chunk.text) for chunk in chunker.cut(text)]
    assert len(passages) > 1
    assert not any(embedder.encode_with_info(passages, input_type="passage").truncated)


@pytest.mark.parametrize("text", [KOREAN * 30, "no sentence ends here " * 100, "가" * 3000, "줄\n바꿈\n\n" * 80])
def test_chunks_cover_every_word_and_their_offsets_fit(chunker: Chunker, text: str) -> None:
    chunks = chunker.cut(text)
    covered = [False] * len(text)
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        covered[chunk.start : chunk.end] = [True] * (chunk.end - chunk.start)
    assert all(covered[position] for position, character in enumerate(text) if not character.isspace())


def test_chunks_end_where_sentences_end(chunker: Chunker) -> None:
    assert all(chunk.text.endswith(".") for chunk in chunker.cut(KOREAN * 30))


def test_neighbouring_chunks_share_a_sentence(chunker: Chunker) -> None:
    chunks = chunker.cut("짧은 말이다. " * 200)
    assert all(later.start < earlier.end for earlier, later in pairwise(chunks))


def test_the_title_stands_above_the_text_once(chunker: Chunker) -> None:
    assert chunker.passage(" 반품\n정책 ", "7일 안에") == "반품 정책\n7일 안에"
    assert chunker.passage("반품 정책", "반품 정책은 이렇다") == "반품 정책은 이렇다"
    assert chunker.passage("", "글") == "글"


def test_a_title_too_long_to_leave_room_is_left_out(chunker: Chunker) -> None:
    assert chunker.passage("긴 제목 " * 100, "글") == "글"


def test_korean_sentences_end_without_a_full_stop() -> None:
    assert split("주문을 취소할 수 있습니다 환불은 늦어요 기다려 주세요") == [
        "주문을 취소할 수 있습니다",
        "환불은 늦어요",
        "기다려 주세요",
    ]


def test_numbers_and_abbreviations_end_no_sentence() -> None:
    assert split("It weighs 3.5 kg, e.g. with its box. Dr. Kim agrees.") == [
        "It weighs 3.5 kg, e.g. with its box.",
        "Dr. Kim agrees.",
    ]


def test_a_closing_quote_belongs_to_its_sentence() -> None:
    assert split('"환불해 주세요." 고객이 말했다.') == ['"환불해 주세요."', "고객이 말했다."]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", [" " * 300_000 + "x", "\n" * 300_000 + "x", ". " * 50_000, "." * 100_000, "'" * 300_000]
)
def test_odd_texts_take_no_longer_than_others(text: str) -> None:
    assert sentences.split(text)
