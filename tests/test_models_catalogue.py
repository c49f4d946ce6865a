"""The catalogue: whole, valid by the builder's own rules, and honest about what nobody has read."""

from __future__ import annotations

from typing import Any

import pytest

import generate_models
from models import model_pin, model_profile_problems, model_profiles, model_profiles_problems
from roles import ROOT, load

CATALOGUE: dict[str, dict[str, Any]] = load(ROOT / "roles/models/vars/main/catalogue.yml")["models_catalogue"]
FROM_HUB = {name: profile for name, profile in CATALOGUE.items() if profile["source"]["type"] == "hub"}
PROMISED = {
    *("multilingual-e5-small", "multilingual-e5-base", "multilingual-e5-large", "distiluse-base-multilingual-cased-v2"),
    *("all-MiniLM-L6-v2", "bge-m3", "gte-multilingual-base", "jina-reranker-v2-base-multilingual"),
    *("ms-marco-MiniLM-L-6-v2", "mmarco-mMiniLMv2-L12-H384-v1", "bge-reranker-v2-m3"),
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_entry_is_a_profile_that_the_builder_takes(name: str) -> None:
    assert model_profile_problems(CATALOGUE[name], name) == []


def test_the_models_that_were_promised_are_there() -> None:
    assert set(FROM_HUB) >= PROMISED


@pytest.mark.parametrize("name", FROM_HUB)
def test_an_entry_says_where_its_revision_was_read_or_that_it_was_not(name: str) -> None:
    profile = FROM_HUB[name]
    unread = "Revision: not read in a named source" in profile["basis"]
    assert unread == (profile["source"]["revision"] is None)
    assert unread or "Revision" in profile["basis"]


def test_an_own_profile_is_checked_field_by_field() -> None:
    own = {**CATALOGUE["all-MiniLM-L6-v2"], "poling": "mean", "max_length": "long"}
    problems = model_profiles_problems({"mine": own, "other": "all-MiniLM-L6-v2"})
    assert any("models_extra_profiles, mine: poling is not a field" in said and "pooling" in said for said in problems)
    assert any("max_length is 'long', expected a whole number" in said for said in problems)
    assert any("other: it is 'all-MiniLM-L6-v2', expected the fields" in said for said in problems)
    assert len(problems) == 3


def test_a_pin_goes_before_the_catalogue_and_an_own_profile_too() -> None:
    own = {**CATALOGUE["all-MiniLM-L6-v2"], "max_length": 128}
    pin = {"revision": "ab" * 20, "files": {"model.safetensors": "cd" * 32}}
    profiles = model_profiles(
        CATALOGUE, {"all-MiniLM-L6-v2": own}, {"mmarco-mMiniLMv2-L12-H384-v1": pin, "no longer there": pin}
    )
    assert profiles["all-MiniLM-L6-v2"]["max_length"] == 128
    pinned = profiles["mmarco-mMiniLMv2-L12-H384-v1"]
    assert (pinned["source"]["revision"], pinned["files"]) == (pin["revision"], pin["files"])
    assert CATALOGUE["mmarco-mMiniLMv2-L12-H384-v1"]["source"]["revision"] is None


def test_a_pin_holds_the_hashes_of_what_the_route_needs() -> None:
    listing = {
        "sha": "ab" * 20,
        "siblings": [
            {"rfilename": "config.json"},
            {"rfilename": "model.safetensors", "lfs": {"sha256": "11" * 32}},
            {"rfilename": "pytorch_model.bin", "lfs": {"sha256": "22" * 32}},
            {"rfilename": "onnx/model.onnx", "lfs": {"sha256": "33" * 32}},
            {"rfilename": "onnx/model.onnx_data", "lfs": {"sha256": "44" * 32}},
            {"rfilename": "onnx/Constant_7_attr__value", "lfs": {"sha256": "55" * 32}},
            {"rfilename": "onnx/model_fp16.onnx", "lfs": {"sha256": "66" * 32}},
            {"rfilename": "onnx/model_fp16.onnx_data", "lfs": {"sha256": "77" * 32}},
            {"rfilename": "onnx/tokenizer.json", "lfs": {"sha256": "88" * 32}},
        ],
    }
    assert model_pin(listing, CATALOGUE["mmarco-mMiniLMv2-L12-H384-v1"])["files"] == {"model.safetensors": "11" * 32}
    assert set(model_pin(listing, CATALOGUE["gte-multilingual-base"])["files"]) == {
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "onnx/Constant_7_attr__value",
    }


def test_pickled_weights_are_not_pinned() -> None:
    listing = {"sha": "ab" * 20, "siblings": [{"rfilename": "pytorch_model.bin", "lfs": {"sha256": "22" * 32}}]}
    with pytest.raises(ValueError, match="runs the code in it"):
        model_pin(listing, CATALOGUE["mmarco-mMiniLMv2-L12-H384-v1"])


def test_the_page_of_models_is_the_catalogues() -> None:
    assert generate_models.main(["--check"]) == 0
