"""playbooks/pin.yml against a real server with the hub's URL layout, on a copy of the production inventory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
REPOSITORY = "cross-encoder/mmarco-mMiniLMv2-L12-H384-v1"
WANTED = {"models_embedding": "all-MiniLM-L6-v2", "models_reranker": "mmarco-mMiniLMv2-L12-H384-v1"}
TOKEN = "hf_secretsecretsecret"


class Hub:
    """Answers about REPOSITORY as the hub does; `status` is what everybody gets."""

    def __init__(self) -> None:
        hub = self
        self.sha, self.status = "ab" * 20, 200
        self.tokens: list[str | None] = []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                hub.tokens.append(self.headers.get("Authorization"))
                found = self.path == f"/api/models/{REPOSITORY}/revision/main?blobs=true"
                siblings = [
                    {"rfilename": "config.json"},
                    {"rfilename": "model.safetensors", "lfs": {"sha256": "11" * 32}},
                ]
                content = json.dumps({"sha": hub.sha, "siblings": siblings}).encode()
                self.send_response(hub.status if found else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "inventory/production", tmp_path / "mine")
    return tmp_path / "mine"


def pin(hub: Hub, inventory: Path, **variables: Any) -> tuple[int, str]:
    given = {**WANTED, "models_hub_endpoint": hub.url, "models_hub_token": TOKEN, **variables}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [ANSIBLE, f"--inventory={inventory}", "playbooks/pin.yml", "--extra-vars", json.dumps(given)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )
    output = done.stdout + done.stderr
    assert TOKEN not in output
    return done.returncode, output


def pins(inventory: Path) -> Any:
    return yaml.safe_load((inventory / "group_vars/onebox/models_pins.yml").read_text())["models_pins"]


def test_what_has_no_commit_gets_the_hubs_and_a_second_run_changes_nothing(hub: Hub, inventory: Path) -> None:
    code, output = pin(hub, inventory)
    assert code == 0 and "changed=1" in output, output
    assert pins(inventory) == {
        "mmarco-mMiniLMv2-L12-H384-v1": {"revision": "ab" * 20, "files": {"model.safetensors": "11" * 32}}
    }
    assert hub.tokens == [f"Bearer {TOKEN}"]
    hub.sha = "cd" * 20
    code, output = pin(hub, inventory)
    assert code == 0 and "changed=0" in output, output
    assert len(hub.tokens) == 1


def test_a_pin_moves_only_when_asked_to(hub: Hub, inventory: Path) -> None:
    pin(hub, inventory)
    hub.sha = "cd" * 20
    code, output = pin(hub, inventory, models_pin_update=True, models_pin_names=["mmarco-mMiniLMv2-L12-H384-v1"])
    assert code == 0, output
    assert pins(inventory)["mmarco-mMiniLMv2-L12-H384-v1"]["revision"] == "cd" * 20


@pytest.mark.parametrize(
    ("status", "said"), [(404, "There is no such repository"), (401, "models_hub_token"), (403, "models_hub_token")]
)
def test_a_refusal_of_the_hub_is_told_and_nothing_is_written(hub: Hub, inventory: Path, status: int, said: str) -> None:
    hub.status = status
    code, output = pin(hub, inventory)
    assert code != 0 and said in output and str(status) in output, output
    assert not (inventory / "group_vars/onebox/models_pins.yml").exists()


def said(output: str) -> str:
    """Without the line breaks that make it fit the terminal."""
    return " ".join(output.split())


@pytest.mark.parametrize("update", [True, False])
def test_what_comes_from_no_hub_is_not_pinned(hub: Hub, inventory: Path, update: bool) -> None:
    code, output = pin(hub, inventory, models_pin_names=["demo-reranker"], models_pin_update=update)
    assert code != 0 and "demo-reranker comes from demo, not from a hub" in said(output), output


def test_each_model_is_told_what_became_of_it(hub: Hub, inventory: Path) -> None:
    _, output = pin(hub, inventory)
    assert f"mmarco-mMiniLMv2-L12-H384-v1 is pinned now, to {'ab' * 20}" in said(output), output
    assert "all-MiniLM-L6-v2 was pinned already, to 8b3219a92973c328a8e22fadcfa821b5dc75636a" in said(output), output
    _, output = pin(hub, inventory, models_embedding="demo-multilingual-e5-small")
    assert "demo-multilingual-e5-small comes from demo: there is nothing to pin" in said(output), output
    assert f"mmarco-mMiniLMv2-L12-H384-v1 was pinned already, to {'ab' * 20}" in said(output), output
    names = ["mmarco-mMiniLMv2-L12-H384-v1"]
    _, output = pin(hub, inventory, models_pin_names=names, models_pin_update=True)
    assert "stays pinned to" in said(output), output


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"models_pin_names": ["mmarco-mMiniLM"]}, "'mmarco-mMiniLM' is no model of the catalogue"),
        ({"models_pin_names": ["all-MiniLM-L6-v3"]}, "did you mean all-MiniLM-L6-v2?"),
        ({"models_reranker": "bge-reranker-v2-m4"}, "did you mean bge-reranker-v2-m3?"),
        (
            {"models_pin_names": ["mine"], "models_extra_profiles": {"mine": {"source": "text"}}},
            "mine: kind is missing",
        ),
    ],
)
def test_names_that_cannot_be_pinned_are_told_and_nothing_is_written(
    hub: Hub, inventory: Path, variables: dict[str, Any], sentence: str
) -> None:
    code, output = pin(hub, inventory, **variables)
    assert code != 0 and sentence in said(output) and "Nothing was pinned" in output, output
    assert hub.tokens == [] and not (inventory / "group_vars/onebox/models_pins.yml").exists()


def test_an_inventory_without_a_folder_for_the_pins_is_told_what_to_make(hub: Hub, inventory: Path) -> None:
    shutil.rmtree(inventory / "group_vars/onebox")
    code, output = pin(hub, inventory)
    assert code != 0 and "group_vars/onebox is not a folder" in said(output) and "Make it" in said(output), output
