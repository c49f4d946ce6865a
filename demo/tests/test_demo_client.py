"""The programs' HTTP client says in one sentence what went wrong, and which step is next."""

import socket
from pathlib import Path

import pytest

from client import Box, DemoError, read_jsonl, read_key
from standin import KEY, StandinBox

ONE = [{"id": "a-1", "title": "Keys", "text": "Keys open doors.", "source": "test", "metadata": {}}]


def test_a_search_brings_back_results_time_and_what_the_reranker_did(standin: StandinBox) -> None:
    box = Box(standin.url, KEY)
    box.submit(ONE)
    answer = box.search("doors", top_k=3)
    assert [result.document_id for result in answer.results] == ["a-1"]
    assert (answer.total_ms, answer.reranked, answer.candidates) == (12.5, True, 1)
    assert standin.searches == [{"query": "doors", "top_k": 3, "rerank": True, "fusion": "hybrid"}]


def test_a_document_is_there_or_it_is_not(standin: StandinBox) -> None:
    box = Box(standin.url, KEY)
    box.submit(ONE)
    assert box.has_document("a-1")
    assert not box.has_document("a-2")


def test_an_address_where_nothing_listens_is_named_with_a_command_to_try() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(DemoError, match=rf"no answer from {url} .*refused.*curl {url}/livez.*--url"):
        Box(url).search("doors")


def test_a_server_that_hangs_up_is_an_unreachable_box() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DemoError, match=r"no answer from .*timed out"):
            Box(url, patience_s=0.1).search("doors")


def test_a_missing_key_and_a_wrong_key_are_told_apart(standin: StandinBox) -> None:
    with pytest.raises(DemoError, match=r"wants an API key \(401: .*--key-file"):
        Box(standin.url).search("doors")
    with pytest.raises(DemoError, match=r"refused the key it was sent \(401: "):
        Box(standin.url, "wrong").search("doors")


def test_the_boxs_own_words_and_the_parameter_are_passed_on(standin: StandinBox) -> None:
    with pytest.raises(DemoError, match=r"POST /documents with 422: text is empty: .* \(text\)"):
        Box(standin.url, KEY).submit([{**ONE[0], "text": ""}])


def test_a_busy_box_is_asked_again_and_not_forever(standin: StandinBox) -> None:
    box = Box(standin.url, KEY)
    standin.busy_answers = 2
    assert box.search("doors").results == []
    standin.busy_answers = 100
    with pytest.raises(DemoError, match="429: too many requests"):
        box.search("doors")


def test_something_else_at_the_address_is_noticed(standin: StandinBox) -> None:
    box = Box(standin.url, KEY)
    standin.next_raw_answer = b"<html>Welcome to nginx"
    with pytest.raises(DemoError, match=r"not JSON .*nginx.*--url"):
        box.search("doors")
    standin.next_raw_answer = b'{"hits": []}'
    with pytest.raises(DemoError, match=r"without 'results' \(found: hits\).*site.yml"):
        box.search("doors")


def test_an_address_without_a_scheme_is_refused_before_any_request() -> None:
    with pytest.raises(DemoError, match="--url 'localhost:8000' is not an address: write it as http://HOST:PORT"):
        Box("localhost:8000")


def test_a_key_file_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"nowhere cannot be read \(No such file"):
        read_key(tmp_path / "nowhere")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(DemoError, match="empty is empty"):
        read_key(tmp_path / "empty")


def test_a_broken_line_of_a_corpus_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n\n{"id": \n')
    with pytest.raises(DemoError, match=r"rows\.jsonl, line 3: not JSON"):
        read_jsonl(path)
    path.write_text("[1]\n")
    with pytest.raises(DemoError, match="line 1: expected an object, found list"):
        read_jsonl(path)
    path.write_text("\n")
    with pytest.raises(DemoError, match="holds no line"):
        read_jsonl(path)
