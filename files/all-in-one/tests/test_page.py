"""The search page in a real browser: search, filters, keyboard, key, both languages; nothing loaded from elsewhere."""

import json
import shutil
import time
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from box import HASHES, KEYS
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright
from served import Served, served

from app import answers
from app.keys import key_of
from app.settings import Settings
from store import documents
from store.documents import Document

pytestmark = pytest.mark.browser

SEARCHER = key_of("searcher", ["search"], "search-key")
DOCUMENTS = [
    Document("returns", "상품을 받은 날부터 7일 안에 할 수 있습니다.", "반품 정책", {"lang": "ko", "shelf": 1}),
    Document(
        "shipping", "Shipping is free for orders above fifty dollars.", "Shipping <b>free</b>",
        {"lang": "en", "shelf": 2, "tags": ["post", "free"]}, "https://example.com/shipping",
    ),
    Document("long", "긴 안내문입니다.", "긴 글", {"lang": "ko", "shelf": 3}, "javascript:alert(1)"),
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "chromium is missing: `./bootstrap.sh chromium` installs Debian's"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def box(
    ready_database: str, model_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with served(ready_database, Settings(keys=(*HASHES, SEARCHER)), tmp_path_factory.mktemp("worker")) as box:
        with box.services.pool.connection() as database:
            documents.submit(database, DOCUMENTS)
        wait_until_indexed(box)
        yield box


def wait_until_indexed(box: Served) -> None:
    with box.services.pool.connection() as database:
        while True:
            row = database.execute("SELECT count(*) AS waiting FROM items WHERE state <> 'done'").fetchone()
            if row == {"waiting": 0}:
                return
            time.sleep(0.05)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(locale="en-US", viewport={"width": 1000, "height": 800})
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, box: Served) -> Iterator[Page]:
    """The page with a key. At the end: nothing was wrong, and nothing was asked of another host."""
    wrong: list[str] = []
    asked: list[str] = []
    page = context.new_page()
    page.add_init_script(f"sessionStorage.setItem('key', '{KEYS[0]}')")
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(box.url)
    expect(page.locator("#query")).to_be_focused()
    yield page
    assert not wrong
    assert [url for url in asked if not url.startswith((f"{box.url}/", "data:"))] == []


def search(page: Page, query: str) -> None:
    page.fill("#query", query)
    with page.expect_response("**/search"):
        page.press("#query", "Enter")
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")


def titles(page: Page) -> list[str]:
    return page.locator("article h2").all_inner_texts()


def answer_with(page: Page, *results: dict[str, Any], status: int = 200, **headers: str) -> None:
    """Let the box answer the next searches with these results: what is shown of them is the page's part."""
    full = [
        {"document_id": "d", "title": "t", "text": "x", "metadata": {}, "source": None, "score": 0.5,
         "scores": {"fused": 0.5, "vector": 0.5, "words": 1.0, "rerank": None}, **result}
        for result in results
    ]  # fmt: skip
    rerank = {"ran": False, "reason": "off", "why": "not asked for", "candidates": 0}
    body = {"results": full, "timings_ms": {"embed": 2.0, "novel": 1.0, "total": 4.0}, "rerank": rerank}

    def fulfil(route: Route) -> None:
        route.fulfill(status=status, json=body if status == 200 else {"error": {"message": "no"}}, headers=headers)

    page.route("**/search", fulfil)


def test_a_question_is_answered_with_scores_and_what_ran_how_long(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("3 documents")
    search(page, "shipping free")
    assert titles(page)[0] == "Shipping <b>free</b>"
    assert float(page.locator("article .score").first.inner_text()) > 0
    expect(page.locator("#report")).to_contain_text("3 candidates reranked")
    page.click("#timings summary")
    assert page.locator("#stages dt").all_inner_texts()[-1] == "total"
    assert page.locator("#stages dd:not(.bar)").all_inner_texts()[0].endswith(" ms")
    expect(page.locator("#why")).to_have_text("every candidate was judged")
    assert page.locator("article mark").all_inner_texts()[:2] == ["Shipping", "free"]


def test_highlights_are_counted_in_characters_as_python_counts_them(page: Page) -> None:
    text = "😀 반품 👩‍👩‍👧 E-204 끝"
    spans = [[text.index(word), text.index(word) + len(word)] for word in ("반품", "E-204")]
    answer_with(page, {"text": text, "title": "𝄞 반품", "highlights": spans, "title_highlights": [[2, 4]]})
    search(page, "x")
    assert page.locator("article mark").all_inner_texts() == ["반품", "반품", "E-204"]
    assert page.locator("article .text").inner_text() == text


def test_a_box_that_marks_nothing_is_shown_without_marks(page: Page) -> None:
    answer_with(page, {"text": "plain"})
    search(page, "plain")
    assert page.locator("article mark").count() == 0
    page.click("#timings summary")
    assert "novel" in page.locator("#stages dt").all_inner_texts()


def test_a_source_is_a_link_only_if_it_is_an_address(page: Page) -> None:
    search(page, "안내문 shipping")
    links = page.locator("article h2 a")
    assert [links.nth(number).get_attribute("href") for number in range(links.count())] == [DOCUMENTS[1].source]
    assert links.first.get_attribute("rel") == "noopener noreferrer"


def test_a_long_text_is_unfolded(page: Page) -> None:
    answer_with(page, {"text": "긴 안내문입니다. " * 80}, {"text": "short"})
    search(page, "x")
    assert page.locator(".more").count() == 1
    article = page.locator("article").first
    text = article.locator(".text")
    before = text.evaluate("text => text.clientHeight")
    article.locator(".more").click()
    assert text.evaluate("text => text.clientHeight") > before
    expect(article.locator(".more")).to_have_text("Less")


def test_filters_come_from_results_and_from_the_form(page: Page) -> None:
    search(page, "안내")
    page.get_by_role("button", name="lang: ko").first.click()
    expect(page.locator("article")).to_have_count(2)
    page.click("#options summary")
    page.fill("#field", "shelf")
    page.select_option("#comparison", "gte")
    page.fill("#value", "2")
    page.click("#filter button")
    expect(page.locator("article")).to_have_count(1)
    assert titles(page) == ["긴 글"]
    expect(page.locator("#filters .chip")).to_have_text(["lang: ko ×", "shelf ≥ 2 ×"])
    page.get_by_role("button", name="Remove the filter lang: ko").click()
    expect(page.locator("article")).to_have_count(2)
    page.go_back()
    expect(page.locator("article")).to_have_count(1)
    page.reload()
    expect(page.locator("#filters .chip")).to_have_count(2)
    expect(page.locator("article")).to_have_count(1)


def test_filters_that_nothing_fits_say_so(page: Page) -> None:
    page.goto(page.url + "?" + "q=x&filter=" + json.dumps([["lang", "=", "fr"]]))
    expect(page.locator("#report")).to_have_text("No document fits the filters. Try without one.")


def test_ways_to_search_reach_the_box(page: Page) -> None:
    search(page, "반품")
    page.click("#options summary")
    with page.expect_request("**/search") as asked:
        page.select_option("#rerank", "off")
    assert (asked.value.post_data_json or {})["rerank"] is False
    expect(page.locator("#report")).to_contain_text("not reranked")
    with page.expect_request("**/search") as asked:
        page.select_option("#fusion", "vectors")
    assert (asked.value.post_data_json or {})["fusion"] == "vectors"


def test_the_keyboard_does_it_all(page: Page) -> None:
    page.keyboard.type("안내")
    page.keyboard.press("Enter")
    expect(page.locator("article")).to_have_count(3)
    articles = page.locator("article")
    page.keyboard.press("ArrowDown")
    expect(articles.nth(0)).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(articles.nth(2)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(articles.nth(1)).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    expect(page.locator("#query")).to_be_focused()
    assert page.input_value("#query") == "안내"


def test_a_slash_can_be_typed(page: Page) -> None:
    page.keyboard.type("a/b")
    assert page.input_value("#query") == "a/b"


def test_the_language_is_the_browsers_until_it_is_changed(page: Page) -> None:
    search(page, "반품")
    page.get_by_role("button", name="한국어").click()
    assert page.get_attribute("html", "lang") == "ko"
    expect(page.locator("#search button")).to_have_text("찾기")
    expect(page.locator("#report")).to_contain_text("다시 매김")
    page.reload()
    expect(page.locator("#search button")).to_have_text("찾기")


def test_every_word_is_there_in_both_languages(page: Page) -> None:
    keys = page.evaluate("Object.values(WORDS).map(words => [...Object.keys(words), ...Object.keys(words.stages)])")
    assert keys[0] == keys[1]
    used = page.evaluate("[...document.querySelectorAll('[data-text]')].map(item => item.dataset.text)")
    assert set(used) <= set(keys[0])
    reasons = page.evaluate("Object.values(WORDS).map(words => Object.keys(words.reasons))")
    known = set(get_args(answers.Rerank.model_fields["reason"].annotation))
    assert [set(told) for told in reasons] == [known, known]


def test_what_waits_and_what_failed_is_shown(page: Page, box: Served) -> None:
    with box.services.pool.connection() as database:
        database.execute("UPDATE items SET state = 'parked', reason = 'test' WHERE document_id = 'long'")
        try:
            database.commit()
            page.reload()
            expect(page.locator("#state")).to_have_text("3 documents · 1 could not be indexed")
        finally:
            database.execute("UPDATE items SET state = 'done' WHERE document_id = 'long'")


def test_a_key_is_asked_for_and_kept_for_the_session_alone(browser: Browser, box: Served) -> None:
    context = browser.new_context(locale="ko-KR")
    page = context.new_page()
    page.goto(box.url)
    expect(page.locator("#key")).to_be_hidden()
    search(page, "반품")
    expect(page.locator("#secret")).to_be_focused()
    for key, says in (("wrong", "상자가 이 키를 받지 않습니다. 다시 넣어 주세요."), ("search-key", "후보")):
        page.fill("#secret", key)
        page.press("#secret", "Enter")
        expect(page.locator("#report")).to_contain_text(says)
    expect(page.locator("#key")).to_be_hidden()
    expect(page.locator("#state")).to_have_text("문서 3개")
    page.reload()
    expect(page.locator("article")).to_have_count(3)
    assert "search-key" not in json.dumps(context.storage_state())
    page.get_by_role("button", name="키 지우기").click()
    expect(page.locator("article")).to_have_count(0)
    assert page.evaluate("sessionStorage.length") == 0
    another = context.new_page()
    another.goto(f"{box.url}/?q=x")
    expect(another.locator("#secret")).to_be_focused()
    context.close()


def test_what_keeps_a_box_from_answering_is_told_apart(context: BrowserContext, box: Served) -> None:
    page = context.new_page()
    page.add_init_script(f"sessionStorage.setItem('key', '{KEYS[0]}')")
    page.goto(box.url)
    answer_with(page, status=403)
    search(page, "x")
    expect(page.locator("#report")).to_have_text("This key may not search. Enter one that may.")
    page.unroute("**/search")
    answer_with(page, status=429, **{"retry-after": "7"})
    page.fill("#secret", KEYS[0])
    page.press("#secret", "Enter")
    expect(page.locator("#report")).to_have_text("The box is busy. Try again in 7 s.")
    page.unroute("**/search")
    answer_with(page, status=503)
    search(page, "x")
    expect(page.locator("#report")).to_contain_text("cannot answer right now")


def test_a_box_that_is_gone_says_so(context: BrowserContext, box: Served) -> None:
    page = context.new_page()
    page.goto(box.url)
    page.route("**/search", lambda route: route.abort())
    page.fill("#query", "x")
    page.press("#query", "Enter")
    expect(page.locator("#report")).to_have_text("The box does not answer.")


@pytest.mark.parametrize("locale", ["ko-KR", "en-US"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_the_dark(browser: Browser, box: Served, locale: str, scheme: Any) -> None:
    context = browser.new_context(locale=locale, color_scheme=scheme, viewport={"width": 340, "height": 700})
    page = context.new_page()
    page.add_init_script(f"sessionStorage.setItem('key', '{KEYS[0]}')")
    page.goto(box.url)
    search(page, "안내")
    page.click("#options summary")
    page.click("#timings summary")
    assert page.evaluate("document.documentElement.scrollWidth") == 340
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in ground.removeprefix("rgb(").rstrip(")").split(",")) / 3
    assert (brightness < 128) is (scheme == "dark")
    context.close()


@pytest.mark.parametrize("settings", [Settings(keys=()), Settings(keys=HASHES, public_search=True)])
def test_a_box_that_anybody_may_search_asks_for_no_key(
    browser: Browser, ready_database: str, model_environment: dict[str, str], settings: Settings
) -> None:
    context = browser.new_context(locale="en-US")
    with served(ready_database, settings, None) as open_box:
        page = context.new_page()
        page.goto(f"{open_box.url}/?q=shipping")
        expect(page.locator("article").first).to_be_visible()
        expect(page.locator("#key")).to_be_hidden()
        context.close()
