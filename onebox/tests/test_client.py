"""The HTTP client says in one sentence what went wrong, and which step is next."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from onebox.client import Box, OneboxError, RefusedError
from onebox.command import read_key
from onebox.tests.standin import KEY, StandinBox

ONE = json.dumps({"id": "a-1", "title": "Keys", "text": "Keys open doors.", "source": "test", "metadata": {}}).encode()


def test_a_search_brings_back_results_time_and_what_the_reranker_did(standin: StandinBox) -> None:
    box = Box(standin.url, KEY)
    box.submit([ONE])
    answer = box.search("doors", top_k=3)
    assert [result.document_id for result in answer.results] == ["a-1"]
    assert (answer.total_ms, answer.reranked, answer.candidates) == (12.5, True, 1)
    assert standin.searches == [{"query": "doors", "top_k": 3, "rerank": True, "fusion": "hybrid"}]


def test_a_document_is_there_or_it_is_not(standin: StandinBox) -> None:
    box = Box(standin.url, KEY)
    box.submit([ONE])
    assert box.has_document("a-1")
    assert not box.has_document("a-2")


def test_an_address_where_nothing_listens_is_named_with_a_command_to_try() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(OneboxError, match=rf"no answer from {url} .*refused.*curl {url}/livez.*--url"):
        Box(url).search("doors")


def test_a_server_that_hangs_up_is_an_unreachable_box() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(OneboxError, match=r"no answer from .*timed out"):
            Box(url, patience_s=0.1).search("doors")


def test_a_box_that_goes_away_on_the_way_is_waited_for(standin: StandinBox) -> None:
    box = Box(standin.url, KEY, persevere_s=30)
    assert box.search("doors").results == []
    standin.hang_ups = 2
    assert box.search("doors").results == []
    standin.hang_ups = 1000
    with pytest.raises(OneboxError, match="no answer from"):
        Box(standin.url, KEY).search("doors")


def test_a_missing_key_and_a_wrong_key_are_told_apart(standin: StandinBox) -> None:
    with pytest.raises(OneboxError, match=r"wants an API key \(401: .*--key-file"):
        Box(standin.url).search("doors")
    with pytest.raises(OneboxError, match=r"refused the key it was sent \(401: "):
        Box(standin.url, "wrong").search("doors")


def test_the_boxs_own_words_and_the_parameter_are_passed_on(standin: StandinBox) -> None:
    standin.next_reply = (403, {"error": {"message": "This takes the scope ingest.", "param": "key", "code": "no"}})
    with pytest.raises(
        RefusedError, match=r"POST /documents with 403: This takes the scope ingest\. \(key\)"
    ) as refused:
        Box(standin.url, KEY).submit([ONE])
    assert (refused.value.status, refused.value.code) == (403, "no")


def test_a_busy_box_is_asked_again_and_not_forever(standin: StandinBox) -> None:
    box = Box(standin.url, KEY, persevere_s=0.6)
    standin.busy_answers = 1
    assert box.search("doors").results == []
    standin.busy_answers = 1000
    with pytest.raises(OneboxError, match="429: too many requests"):
        box.search("doors")


def test_something_else_at_the_address_is_noticed(standin: StandinBox) -> None:
    box = Box(standin.url, KEY)
    standin.next_raw_answer = b"<html>Welcome to nginx"
    with pytest.raises(OneboxError, match=r"not JSON .*nginx.*--url"):
        box.search("doors")
    standin.next_raw_answer = b'{"hits": []}'
    with pytest.raises(OneboxError, match=r"without 'results' \(found: hits\).*site.yml"):
        box.search("doors")


def test_the_key_does_not_follow_a_redirect(standin: StandinBox) -> None:
    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"{standin.url}/health")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Redirect) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        with pytest.raises(RefusedError, match="302"):
            Box(f"http://127.0.0.1:{elsewhere.server_port}", KEY).health()
        elsewhere.shutdown()


def test_an_address_without_a_scheme_is_refused_before_any_request() -> None:
    with pytest.raises(OneboxError, match="--url 'localhost:8000' is not an address: write it as http://HOST:PORT"):
        Box("localhost:8000")


def test_a_key_file_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(OneboxError, match=r"nowhere cannot be read \(No such file"):
        read_key(tmp_path / "nowhere")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(OneboxError, match="empty is empty"):
        read_key(tmp_path / "empty")


def test_during_a_rotation_the_first_key_of_the_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("old-key\r\nnew-key\n")
    assert read_key(tmp_path / "keys") == "old-key"
