"""Snapshots from a folder and from a hub that misbehaves, with the real client."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub_server
import onnx
import pytest
import tiny_graphs
from hub_server import REPOSITORY, REVISION, Hub
from onnx.external_data_helper import set_external_data

import modelbuild
from modelbuild import graph
from modelbuild.errors import BuildError
from modelbuild.fetch import fetch
from modelbuild.profile import parse_profile
from modelbuild.request import make_request
from modelbuild.snapshot import KEPT, read_snapshot, snapshot_folder
from modelbuild.workspace import Workspace

PAYLOAD = Path(modelbuild.__file__).parent.parent
TOKEN = "hf_secretsecretsecretsecret"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "models", tmp_path / "cache", tmp_path / "state")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tiny_graphs.write_model(tmp_path / "source")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def folder_profile(folder: Path, **changes: Any) -> dict[str, Any]:
    return tiny_graphs.profile(source={"type": "folder", "path": str(folder)}, **changes)


def test_a_folder_becomes_a_snapshot_with_hashes(workspace: Workspace, source: Path) -> None:
    result = fetch(workspace, parse_profile(folder_profile(source)))
    assert result["changed"] is True
    snapshot = read_snapshot(Path(result["snapshot"]))
    assert snapshot.files["model.safetensors"]["bytes"] == 7
    assert snapshot.total_bytes == result["bytes"]
    assert fetch(workspace, parse_profile(folder_profile(source)))["changed"] is False


def test_weights_that_run_code_and_hidden_files_are_not_taken(workspace: Workspace, source: Path) -> None:
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / ".git").mkdir()
    (source / ".git" / "config").write_text("x")
    snapshot = read_snapshot(Path(fetch(workspace, parse_profile(folder_profile(source)))["snapshot"]))
    assert set(snapshot.files) == {"config.json", "model.onnx", "model.safetensors", "tokenizer.json"}


@pytest.mark.parametrize(
    ("missing", "said"),
    [("config.json", r"no config\.json"), ("tokenizer.json", "fast tokenizer"), ("model.safetensors", "safetensors")],
)
def test_a_folder_that_lacks_something_is_refused(workspace: Workspace, source: Path, missing: str, said: str) -> None:
    (source / missing).unlink()
    with pytest.raises(BuildError, match=said):
        fetch(workspace, parse_profile(folder_profile(source)))
    assert [path for path in workspace.snapshots.iterdir() if not path.name.startswith(".")] == []


def test_a_prebuilt_model_needs_its_onnx_file_only(workspace: Workspace, source: Path) -> None:
    (source / "model.safetensors").unlink()
    with pytest.raises(BuildError, match=r"no onnx/model\.onnx"):
        fetch(workspace, parse_profile(folder_profile(source, route="prebuilt")))
    profile = parse_profile(folder_profile(source, route="prebuilt", file="model.onnx"))
    assert fetch(workspace, profile)["changed"] is True


def test_only_the_latest_snapshots_are_kept(workspace: Workspace, source: Path) -> None:
    kept = []
    for number in range(KEPT + 2):
        (source / "config.json").write_text(json.dumps({"number": number}))
        kept.append(fetch(workspace, parse_profile(folder_profile(source)))["snapshot"])
    assert sorted(str(path) for path in workspace.snapshots.iterdir()) == sorted(kept[-KEPT:])


def test_a_source_that_changes_during_a_build_does_not_move_the_snapshot(workspace: Workspace, source: Path) -> None:
    request = make_request(parse_profile(folder_profile(source)), {})
    first = fetch(workspace, request.profile, request.fingerprint)["snapshot"]
    (source / "config.json").write_text('{"changed": true}')
    assert str(snapshot_folder(workspace, request.profile, request.fingerprint)) == first
    assert make_request(request.profile, {}).id != request.id


@pytest.fixture
def hub(source: Path) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in source.iterdir() if path.suffix != ".onnx"}
    files["model.safetensors"] = os.urandom(3_000_000)
    files["pytorch_model.bin"] = b"pickle"
    server = hub_server.Hub(files)
    yield server
    server.close()


def start_fetch(
    hub: Hub,
    tmp_path: Path,
    *,
    url: str | None = None,
    token: str = TOKEN,
    cache: Path | None = None,
    changes: dict[str, Any] | None = None,
    **source: str,
) -> subprocess.Popen[str]:
    """The real command at work on the hub."""
    hub_source = {"type": "hub", "repository": REPOSITORY, "revision": REVISION, **source}
    (tmp_path / "profile.json").write_text(json.dumps(tiny_graphs.profile(source=hub_source, **(changes or {}))))
    command = [sys.executable, "-m", "modelbuild", "fetch", "--profile", str(tmp_path / "profile.json")]
    command += ["--models-dir", str(tmp_path / "models"), "--cache-dir", str(cache or tmp_path / "cache")]
    environment = {
        **os.environ,
        "HF_ENDPOINT": url or hub.url,
        "HF_TOKEN": token,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    return subprocess.Popen(
        command, cwd=PAYLOAD, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def fetch_from(hub: Hub, tmp_path: Path, **options: Any) -> tuple[int, dict[str, Any], str]:
    """(exit code, JSON line, all it printed)."""
    process = start_fetch(hub, tmp_path, **options)
    output, errors = process.communicate(timeout=120)
    return process.returncode, json.loads(output), output + errors


def test_a_pinned_revision_is_fetched_without_pickled_weights(hub: Hub, tmp_path: Path) -> None:
    code, result, _ = fetch_from(hub, tmp_path)
    assert code == 0
    snapshot = read_snapshot(Path(result["snapshot"]))
    assert set(snapshot.files) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (snapshot.folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert all(REVISION in path for _, path, _ in hub.requests)


def test_a_fetched_snapshot_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    fetch_from(hub, tmp_path)
    hub.requests.clear()
    code, result, _ = fetch_from(hub, tmp_path)
    assert (code, result["changed"], hub.requests) == (0, False, [])


def test_a_broken_connection_is_resumed_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    # The client keeps whole pieces of 10 MB: the second connection asks for what is after the first one.
    hub.files["model.safetensors"] = os.urandom(24_000_000)
    hub.break_after = 15_000_000
    code, result, output = fetch_from(hub, tmp_path)
    assert code == 0, output
    assert [wanted for _, _, wanted in hub.requests if wanted] == ["bytes=10485760-"]
    assert (Path(result["snapshot"]) / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_a_download_that_keeps_breaking_is_no_snapshot(hub: Hub, tmp_path: Path) -> None:
    hub.break_after = 100_000
    code, result, _ = fetch_from(hub, tmp_path)
    assert code == 1
    assert "run this again to resume" in result["error"]
    assert [path for path in (tmp_path / "cache" / "snapshots").iterdir() if not path.name.startswith(".")] == []
    hub.break_after = None
    assert fetch_from(hub, tmp_path)[0] == 0


def test_a_file_with_another_hash_than_published_is_refused_and_removed(hub: Hub, tmp_path: Path) -> None:
    hub.claimed["model.safetensors"] = "ab" * 32
    code, result, _ = fetch_from(hub, tmp_path)
    assert code == 1
    assert "model.safetensors arrived with the hash" in result["error"]
    assert list((tmp_path / "cache").rglob("model.safetensors")) == []
    hub.claimed.clear()
    assert fetch_from(hub, tmp_path)[0] == 0


def test_a_missing_revision_and_a_gated_model_are_told_apart(hub: Hub, tmp_path: Path) -> None:
    code, result, _ = fetch_from(hub, tmp_path, revision="f" * 40)
    assert (code, "no such revision" in result["error"]) == (1, True)
    code, result, _ = fetch_from(hub, tmp_path, repository="acme/other")
    assert (code, "no such repository" in result["error"]) == (1, True)
    hub.gated = True
    code, result, _ = fetch_from(hub, tmp_path)
    assert (code, "licence accepted on the hub" in result["error"]) == (1, True)


def test_without_a_token_what_needs_one_says_so_and_a_wrong_token_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.always = (401, {})
    _, result, _ = fetch_from(hub, tmp_path, token="")
    assert "needs a token" in result["error"] and "models_hub_token" in result["error"]
    hub.always = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    _, result, _ = fetch_from(hub, tmp_path)
    assert "the hub refuses this token (401)" in result["error"]


def test_a_rate_limit_is_waited_out_as_the_hub_asks(hub: Hub, tmp_path: Path) -> None:
    hub.answers = [(429, {"Retry-After": "1"})] * 2
    code, _, output = fetch_from(hub, tmp_path)
    assert code == 0, output
    assert output.count("waiting 1 s as it asks") == 2


def test_a_rate_limit_that_is_too_long_is_told(hub: Hub, tmp_path: Path) -> None:
    hub.always = (429, {"Retry-After": "3600"})
    code, result, _ = fetch_from(hub, tmp_path)
    assert code == 1 and "asks to wait 3600 s" in result["error"]


def test_a_server_that_fails_for_a_while_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    hub.answers = [(500, {}), (503, {})]
    code, _, output = fetch_from(hub, tmp_path)
    assert code == 0, output
    assert hub.answers == []


def test_a_listing_that_fails_for_a_while_is_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    hub.listing_answers = [502, 503]
    code, _, output = fetch_from(hub, tmp_path)
    assert code == 0, output
    assert "the server failed (502): asking again in 1 s" in output
    assert "the server failed (503): asking again in 2 s" in output


@pytest.mark.parametrize("failing", ["always", "listing_always"])
def test_a_server_that_fails_for_ever_is_named(hub: Hub, tmp_path: Path, failing: str) -> None:
    setattr(hub, failing, (500, {}))
    code, result, _ = fetch_from(hub, tmp_path)
    assert code == 1 and "the server failed (500) at every attempt" in result["error"]


def test_a_stalled_download_shows_that_it_stands_still_and_goes_on(hub: Hub, tmp_path: Path) -> None:
    """Nothing arrives for longer than the client's patience of ten seconds."""
    hub.files["model.safetensors"] = os.urandom(24_000_000)
    hub.stall_after = 15_000_000
    code, result, output = fetch_from(hub, tmp_path)
    assert code == 0, output
    assert "of 24 MB, 0.0 MB/s" in output
    assert (Path(result["snapshot"]) / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_killed_in_the_middle_it_goes_on_from_there(hub: Hub, tmp_path: Path) -> None:
    hub.files["model.safetensors"] = os.urandom(24_000_000)
    hub.stall_after = 15_000_000
    process = start_fetch(hub, tmp_path)
    assert process.stderr is not None
    while "0.0 MB/s" not in process.stderr.readline():
        pass
    process.kill()
    process.communicate()
    cache = tmp_path / "cache" / "snapshots"
    assert [path for path in cache.iterdir() if not path.name.startswith(".")] == []
    hub.requests.clear()
    code, result, output = fetch_from(hub, tmp_path)
    assert code == 0, output
    assert [wanted for _, _, wanted in hub.requests if wanted] == ["bytes=10485760-"]
    assert (Path(result["snapshot"]) / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert [path.name for path in cache.iterdir()] == [Path(result["snapshot"]).name]


def test_pickled_weights_alone_are_refused_before_they_are_downloaded(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    code, result, _ = fetch_from(hub, tmp_path)
    assert code == 1
    assert "its weights are in pytorch_model.bin, and loading such a file runs the code in it" in result["error"]
    assert not any("resolve" in path for _, path, _ in hub.requests)


def test_a_missing_shard_is_noticed(hub: Hub, tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    code, result, _ = fetch_from(hub, tmp_path)
    assert code == 1 and "model-00002-of-00002.safetensors, which model.safetensors.index.json names" in result["error"]


def offer_graph(hub: Hub, tmp_path: Path) -> None:
    """The hub's repository gets a graph of its own with tensors beside it, and files that it does not need."""
    folder = tiny_graphs.write_model(tmp_path / "graph", inputs=tiny_graphs.ALL_INPUTS)
    tiny_graphs.keep_tensors_beside(folder / "model.onnx")
    for name in ("model.onnx", *tiny_graphs.TENSOR_FILES):
        hub.files[f"onnx/{name}"] = (folder / name).read_bytes()
    for name in ("model_int8.onnx", "model_int8.onnx_data", "model.onnx_data_2"):
        hub.files[f"onnx/{name}"] = name.encode()


def test_a_prebuilt_graph_comes_with_the_tensor_files_that_it_names_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    offer_graph(hub, tmp_path)
    # A pin knows every file beside the graph, also one that the graph does not name.
    files = {name: hub.sha256(name) for name in ("onnx/model.onnx", "onnx/model.onnx_data", "onnx/model.onnx_data_2")}
    code, result, output = fetch_from(hub, tmp_path, changes={"route": "prebuilt", "files": files})
    assert code == 0, output
    snapshot = read_snapshot(Path(result["snapshot"]))
    needed = {"onnx/model.onnx", *(f"onnx/{name}" for name in tiny_graphs.TENSOR_FILES)}
    assert set(snapshot.files) == {"config.json", "tokenizer.json", *needed}
    assert graph.files_of(snapshot.folder / "onnx" / "model.onnx")


def test_a_repository_without_a_file_that_its_graph_names_is_refused(hub: Hub, tmp_path: Path) -> None:
    offer_graph(hub, tmp_path)
    del hub.files["onnx/Constant_7_attr__value"]
    code, result, _ = fetch_from(hub, tmp_path, changes={"route": "prebuilt"})
    assert code == 1
    assert "onnx/model.onnx keeps tensors in onnx/Constant_7_attr__value, which the repository" in result["error"]


@pytest.mark.parametrize("location", ["/etc/hostname", "../../outside"])
def test_a_graph_whose_tensors_lie_outside_of_its_folder_is_refused(
    workspace: Workspace, source: Path, location: str
) -> None:
    model = onnx.load(str(source / "model.onnx"))
    set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    (source / "model.onnx").write_bytes(model.SerializeToString())
    profile = parse_profile(folder_profile(source, route="prebuilt", file="model.onnx"))
    with pytest.raises(BuildError, match="leads out of its folder"):
        fetch(workspace, profile)


def test_a_folder_with_tensors_of_any_name_beside_its_graph_is_taken_whole(workspace: Workspace, source: Path) -> None:
    model = onnx.load(str(source / "model.onnx"))
    onnx.save(model, str(source / "model.onnx"), save_as_external_data=True, location="weights.bin")
    profile = parse_profile(folder_profile(source, route="prebuilt", file="model.onnx"))
    first = read_snapshot(Path(fetch(workspace, profile)["snapshot"]))
    assert "weights.bin" in first.files
    (source / "weights.bin").write_bytes(bytes(reversed((source / "weights.bin").read_bytes())))
    again = read_snapshot(Path(fetch(workspace, profile)["snapshot"]))
    assert again.weights_sha256 != first.weights_sha256


def test_what_is_no_graph_is_refused(workspace: Workspace, source: Path) -> None:
    (source / "model.onnx").write_bytes(b"no graph at all")
    profile = parse_profile(folder_profile(source, route="prebuilt", file="model.onnx"))
    with pytest.raises(BuildError, match="is not an ONNX graph"):
        fetch(workspace, profile)


def test_not_even_the_hub_is_believed_about_a_pinned_hash(hub: Hub, tmp_path: Path) -> None:
    code, result, _ = fetch_from(hub, tmp_path, changes={"files": {"model.safetensors": "ab" * 32}})
    assert code == 1
    assert f"model.safetensors has the hash {hub.sha256('model.safetensors')[:12]}" in result["error"]
    right = {"files": {"model.safetensors": hub.sha256("model.safetensors")}}
    assert fetch_from(hub, tmp_path, changes=right)[0] == 0


def test_too_small_a_disk_is_seen_before_the_download(hub: Hub, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(small)], check=True)
    try:
        hub.files["model.safetensors"] = os.urandom(100_000_000)
        code, result, _ = fetch_from(hub, tmp_path, cache=small)
        assert code == 1 and "100 MB are to come" in result["error"] and "must stay" in result["error"]
        assert not any("resolve" in path for _, path, _ in hub.requests)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_snapshot_that_changed_afterwards_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    snapshot = Path(fetch_from(hub, tmp_path)[1]["snapshot"])
    (snapshot / "model.safetensors").write_bytes(b"altered")
    code, result, output = fetch_from(hub, tmp_path)
    assert (code, result["changed"]) == (0, True), output
    assert "model.safetensors changed since it was fetched" in output
    assert (snapshot / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_a_folder_with_pickled_weights_alone_or_a_way_out_is_refused(workspace: Workspace, source: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(BuildError, match=r"weights are in pytorch_model\.bin"):
        fetch(workspace, parse_profile(folder_profile(source)))
    (source / "pytorch_model.bin").unlink()
    (source / "model.safetensors").symlink_to("/etc/hostname")
    with pytest.raises(BuildError, match="out of the model's folder"):
        fetch(workspace, parse_profile(folder_profile(source)))


def test_the_token_is_never_printed(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    assert TOKEN not in fetch_from(hub, tmp_path)[2]
    hub.gated = False
    assert TOKEN not in fetch_from(hub, tmp_path)[2]


def test_an_unreachable_hub_is_named(hub: Hub, tmp_path: Path) -> None:
    code, result, output = fetch_from(hub, tmp_path, url="http://127.0.0.1:9")
    assert code == 1
    assert "http://127.0.0.1:9" in result["error"]
    assert "Traceback" not in output


def test_profiles_of_one_source_share_its_snapshot(workspace: Workspace, source: Path) -> None:
    first, second = (fetch(workspace, parse_profile(folder_profile(source, name=name))) for name in ("One", "Two"))
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["snapshot"] == second["snapshot"]
