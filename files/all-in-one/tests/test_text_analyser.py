"""Lexemes: what a word in a question and the same word in a document have in common."""

import random
import unicodedata

import pytest

from text.analyser import Analyser


@pytest.fixture(scope="module")
def analyser() -> Analyser:
    return Analyser()


@pytest.mark.parametrize(
    ("question", "document", "shared"),
    [
        ("반품하려면 어떻게 하나요?", "반품은 7일 안에 가능합니다.", "반품"),
        ("비밀번호를 잊어버렸어요", "비밀번호가 기억나지 않으면", "비밀번호"),
        ("how to reset passwords", "Resetting your password", "password"),
        ("Returning shoes", "shoes can be returned", "return"),
        ("E-204 오류가 떠요", "오류 코드 e204", "e204"),
        ("AB_1234 재고", "상품 ab-1234의 재고", "ab1234"),
        ("3,000원 배송비", "배송비는 3000원입니다", "3000"),
        ("ＡＢ－１２ 모델", "모델 AB-12", "ab12"),
        ("Käufer", "der Käufer", "käufer"),
        ("ㅂㅣ밀번호 변경", "비밀번호를 바꾸세요", "비밀번호"),
    ],
)
def test_the_same_word_gives_the_same_lexeme(analyser: Analyser, question: str, document: str, shared: str) -> None:
    assert shared in analyser.lexemes(question)
    assert shared in analyser.lexemes(document)


def test_a_compound_is_found_however_it_was_cut(analyser: Analyser) -> None:
    assert {"비밀", "번호", "비밀번호"} <= set(analyser.lexemes("비밀번호를 잊어버렸어요"))


def test_particles_and_endings_are_no_lexemes(analyser: Analyser) -> None:
    assert set(analyser.lexemes("반품 정책은 어떻게 되나요?")) == {"반품", "정책"}


def test_function_words_are_no_lexemes(analyser: Analyser) -> None:
    assert set(analyser.lexemes("What is the policy for the returns?")) == {"polici", "return"}


def test_repeated_words_are_counted(analyser: Analyser) -> None:
    assert analyser.lexemes("환불 환불 카드") == {"환불": 2, "카드": 1}


@pytest.mark.parametrize("code", ["E-204", "AB-1234", "KX100", "v2.1", "070-1234-5678", "SM-G991N"])
def test_codes_are_recognised_and_kept_whole(analyser: Analyser, code: str) -> None:
    codes = analyser.codes(f"제 기기에 {code}가 나와요")
    assert len(codes) == 1
    assert codes <= set(analyser.lexemes(f"{code} error"))


@pytest.mark.parametrize("text", ["반품 7일", "return in 30 days", "3,000원", "wi-fi"])
def test_plain_words_and_numbers_are_no_codes(analyser: Analyser, text: str) -> None:
    assert analyser.codes(text) == set()


def test_digits_that_are_parted_otherwise_are_another_code(analyser: Analyser) -> None:
    assert analyser.codes("1-23") != analyser.codes("12-3")


@pytest.mark.parametrize("text", ["", " ", "?!", "😀", "\ufeff", "ㅋㅋㅋ"])
def test_a_text_without_words_has_no_lexeme(analyser: Analyser, text: str) -> None:
    assert not analyser.lexemes(text)


def test_an_endless_word_is_told_apart_by_its_beginning(analyser: Analyser) -> None:
    lexemes = analyser.lexemes("x" * 10_000 + " " + "a1" * 5000 + " " + "가나다" * 3000)
    assert lexemes
    assert max(map(len, lexemes)) == 64


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["a." * 50_000, "1-" * 50_000, "a-" * 50_000 + "1", "가." * 2000, "1,1." * 20_000])
def test_odd_texts_take_no_longer_than_others(analyser: Analyser, text: str) -> None:
    analyser.lexemes(text)
    analyser.codes(text)


def test_words_are_those_of_the_text_as_nfkc_writes_it(analyser: Analyser) -> None:
    pieces = ["반품", "ㅂㅣ", "ㅎㅏ", "ㅠ", "ㅋ", "\u1112\u1161\u11ab", "e\u0301", "ﬁ", "㎏", "Ａ", "①", " ", "😀"]
    chance = random.Random(3)
    for _ in range(500):
        text = "".join(chance.choices(pieces, k=8))
        assert analyser.lexemes(text) == analyser.lexemes(unicodedata.normalize("NFKC", text)), ascii(text)


def highlighted(analyser: Analyser, query: str, text: str) -> list[str]:
    return [text[start:end] for start, end in analyser.highlights(text, analyser.lexemes(query))]


@pytest.mark.parametrize(
    ("query", "text", "found"),
    [
        ("환불이 언제 되나요", "환불은 3일 안에 환불 계좌로 갑니다.", ["환불", "환불"]),
        ("떠나는 버스", "버스가 떠났습니다.", ["버스", "떠났"]),
        ("e204", "오류 E-204 (e204)", ["E-204", "e204"]),
        ("shipping costs", "Free shipping! Shipped at no cost.", ["shipping", "Shipped", "cost"]),
        ("배송비", "배송비는 없습니다. 배송은 빠릅니다.", ["배송비"]),
        ("the of", "the end of it", []),
        ("nothing", "", []),
        ("반품", "😀 ① ﬁne: 반품", ["반품"]),
        ("abc", "ＡＢＣ ㎏", ["ＡＢＣ"]),
        ("café", "cafe\u0301 open", ["cafe\u0301"]),
        ("비밀번호", "ㅂㅣ밀번호 변경", ["ㅂㅣ밀번호"]),
        ("반품", "반품ㅠㅠ", ["반품"]),
    ],
)
def test_words_are_found_where_they_stand(analyser: Analyser, query: str, text: str, found: list[str]) -> None:
    assert highlighted(analyser, query, text) == found


def test_a_word_longer_than_any_lexeme_has_its_stem_all_the_same(analyser: Analyser) -> None:
    assert list(analyser.lexemes("ba" * 31 + "ing")) == ["ba" * 31]
