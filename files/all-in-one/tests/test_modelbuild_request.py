"""A request's ID, the thresholds that belong to it, and `plan`."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_graphs

from modelbuild import request as request_module
from modelbuild.errors import BuildError
from modelbuild.profile import parse_profile
from modelbuild.request import digest, make_request, slug
from modelbuild.thresholds import DEFAULTS, read_overrides, thresholds_for
from pipeline.cpu import Cpu

PAYLOAD = Path(request_module.__file__).parent.parent
AVX2, VNNI = Cpu("x86-avx2", ("avx2",)), Cpu("x86-vnni", ("avx2", "avx_vnni"))
HUB = {"type": "hub", "repository": "owner/name", "revision": "0123456789abcdef0123456789abcdef01234567"}


def request_id(cpu: Cpu = AVX2, overrides: dict[str, Any] | None = None, **changes: Any) -> str:
    profile = parse_profile(tiny_graphs.profile(source=HUB, **changes))
    return make_request(profile, overrides or {}, cpu).id


def test_the_same_request_has_the_same_id() -> None:
    assert request_id() == request_id()


def test_the_order_of_fields_does_not_matter() -> None:
    content = tiny_graphs.profile(source=HUB)
    turned = dict(reversed(content.items()))
    assert make_request(parse_profile(turned), {}, AVX2).id == make_request(parse_profile(content), {}, AVX2).id


def test_the_id_is_the_models_name_and_twelve_digits() -> None:
    name, _, digits = request_id().rpartition("-")
    assert name == "tiny-model"
    assert len(digits) == 12
    assert int(digits, 16) >= 0


@pytest.mark.parametrize(
    "changed",
    [
        {"max_length": 128},
        {"pooling": "cls"},
        {"cpu": VNNI},
        {"overrides": {"min_cosine": 0.5}},
    ],
)
def test_what_changes_the_outcome_changes_the_id(changed: dict[str, Any]) -> None:
    assert request_id(**changed) != request_id()


def test_thresholds_of_the_other_kind_do_not_change_the_id() -> None:
    assert request_id(overrides={"max_drift": 0.2}) == request_id()


def test_another_lock_is_another_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = request_id()
    (tmp_path / "requirements.txt").write_text("onnxruntime==99\n")
    monkeypatch.setattr(request_module, "LOCK", tmp_path / "requirements.txt")
    assert request_id() != before


def test_a_folders_content_is_part_of_the_request(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    profile = parse_profile(tiny_graphs.profile(source={"type": "folder", "path": str(tmp_path)}))
    before = make_request(profile, {}, AVX2).id
    assert make_request(profile, {}, AVX2).id == before
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert make_request(profile, {}, AVX2).id != before


def test_a_stray_file_beside_the_demo_builders_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "faq").mkdir()
    for name in ("demo/e5.py", "demo/packages.txt", "faq/train.jsonl"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(request_module, "HERE", tmp_path)
    profile = parse_profile(tiny_graphs.profile(source={"type": "demo", "builder": "e5"}))
    before = make_request(profile, {}, AVX2).id
    (tmp_path / "demo" / "notes.txt").write_text("stray")
    (tmp_path / "faq" / "train.jsonl").write_text("the reranker's")
    assert make_request(profile, {}, AVX2).id == before
    (tmp_path / "demo" / "packages.txt").write_text("2")
    assert make_request(profile, {}, AVX2).id != before


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    profile = parse_profile(tiny_graphs.profile(source={"type": "folder", "path": str(tmp_path / "gone")}))
    with pytest.raises(BuildError, match="gone does not exist"):
        make_request(profile, {}, AVX2)


def test_a_digest_is_stable_across_versions() -> None:
    assert digest({"b": 1, "a": ["반품", 0.5, None]}) == digest({"a": ["반품", 0.5, None], "b": 1})
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("intfloat/multilingual-e5-small", "intfloat-multilingual-e5-small"), ("A__B", "a-b"), ("한글", "model")],
)
def test_a_slug_is_a_plain_file_name(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_overrides_apply_by_name_or_by_kind() -> None:
    assert thresholds_for("embedding", {"min_spearman": 0.5})["min_spearman"] == 0.5
    assert thresholds_for("reranker", {"min_spearman": 0.5})["min_spearman"] == 0.5
    by_kind = {"reranker": {"min_spearman": 0.5}}
    assert thresholds_for("reranker", by_kind)["min_spearman"] == 0.5
    assert thresholds_for("embedding", by_kind) == DEFAULTS["embedding"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"min_cosin": 0.9}, "min_cosin is unknown, did you mean min_cosine"),
        ({"min_cosine": "high"}, "min_cosine is 'high', expected a number"),
        ({"embedding": 0.9}, "expected an object"),
        ({"embedding": {"max_drift": 0.1}}, "max_drift is unknown"),
    ],
)
def test_a_wrong_override_is_named(overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(BuildError) as error:
        thresholds_for("embedding", overrides)
    assert said in str(error.value)


def test_overrides_are_json_or_a_json_file(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"min_cosine": 0.5}')
    assert read_overrides('{"min_cosine": 0.5}') == read_overrides(str(tmp_path / "t.json")) == {"min_cosine": 0.5}
    assert read_overrides(None) == read_overrides("{}") == {}
    with pytest.raises(BuildError, match="neither JSON nor"):
        read_overrides("min_cosine=0.5")


def plan(tmp_path: Path, content: object, *options: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "profile.json").write_text(json.dumps(content))
    # -S leaves site-packages out: what runs is the standard library and the payload.
    command = [sys.executable, "-S", "-m", "modelbuild", "plan", "--profile", str(tmp_path / "profile.json")]
    return subprocess.run(
        [*command, "--models-dir", str(tmp_path / "models"), *options],
        cwd=PAYLOAD,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def planned(tmp_path: Path, content: object, *options: str) -> Any:
    """What the plan of one profile says of its release."""
    (release,) = json.loads(plan(tmp_path, content, *options).stdout)["releases"]
    return release


def test_plan_needs_the_standard_library_only_and_touches_nothing(tmp_path: Path) -> None:
    done = plan(tmp_path, tiny_graphs.profile(source=HUB))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    (release,) = answer["releases"]
    assert release["id"].startswith("tiny-model-")
    assert answer["changed"] is False
    assert (release["kind"], release["present"], release["active"]) == ("embedding", False, False)
    assert not (tmp_path / "models").exists()


def test_a_plan_of_several_models_names_them_in_their_order(tmp_path: Path) -> None:
    contents = [tiny_graphs.profile(source=HUB), tiny_graphs.profile("reranker", source=HUB)]
    releases = json.loads(plan(tmp_path, contents).stdout)["releases"]
    assert [release["kind"] for release in releases] == ["embedding", "reranker"]
    assert [release["id"] for release in releases] == [planned(tmp_path, content)["id"] for content in contents]
    done = plan(tmp_path, [contents[0], {**contents[1], "max_length": 0}])
    assert done.returncode == 1 and "max_length is 0" in done.stderr


def test_plan_sees_a_release_and_its_link(tmp_path: Path) -> None:
    content = tiny_graphs.profile(source=HUB)
    release_id = planned(tmp_path, content)["id"]
    release = tmp_path / "models" / "releases" / release_id
    release.mkdir(parents=True)
    assert planned(tmp_path, content)["present"] is False
    (release / "config.json").write_text("{}")
    sha256 = hashlib.sha256(b"{}").hexdigest()
    (release / "manifest.json").write_text(json.dumps({"files": {"config.json": sha256}}))
    assert planned(tmp_path, content)["present"] is True
    (tmp_path / "models" / "emb").symlink_to(f"releases/{release_id}")
    assert planned(tmp_path, content)["active"] is True


def test_an_error_is_one_sentence_and_one_json_line(tmp_path: Path) -> None:
    done = plan(tmp_path, tiny_graphs.profile(source=HUB, pooling="max"))
    assert done.returncode == 1
    assert "pooling is 'max'" in done.stderr
    assert json.loads(done.stdout)["changed"] is False
    assert "Traceback" not in done.stderr


def test_overrides_reach_the_plan(tmp_path: Path) -> None:
    content = tiny_graphs.profile(source=HUB)
    ids = {planned(tmp_path, content, *o)["id"] for o in ((), ("--thresholds={}",))}
    assert len(ids) == 1
    ids.add(planned(tmp_path, content, '--thresholds={"min_cosine": 0.1}')["id"])
    assert len(ids) == 2
