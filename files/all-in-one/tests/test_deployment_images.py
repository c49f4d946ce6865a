"""Image names change when, and only when, what an image is made from changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deployment import images

PAYLOAD_ROOT = Path(__file__).resolve().parents[1]
BASE = "onebox-base:0123456789ab"
SERVICES = {image.name for image in images.IMAGES}


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """A payload with one file for each part of each image, and the parts that belong to none."""
    folder = tmp_path / "payload"
    for part in {part for image in images.IMAGES for part in image.parts} | {"pipeline", "modelbuild", "deployment"}:
        path = folder / part if Path(part).suffix or part.startswith(".") else folder / part / "module.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {part}\n")
    return folder


def renamed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_each_image_has_a_name_of_its_own_digest(payload: Path) -> None:
    named = images.tags(payload, BASE)
    assert named["base"] == BASE
    assert set(named) == SERVICES | {"base"}
    assert all(named[name].startswith(f"onebox-{name}:") for name in SERVICES)


@pytest.mark.parametrize(
    "file,expected",
    [
        ("app/module.py", {"app"}),
        ("worker/module.py", {"app"}),
        ("store/module.py", {"app"}),
        ("text/module.py", {"app"}),
        (".dockerignore", {"app"}),
        ("images/app.Dockerfile", {"app"}),
        ("images/postgres.Dockerfile", {"postgres"}),
        ("images/postgres-entrypoint.sh", {"postgres"}),
        ("images/redis.Dockerfile", {"redis"}),
        ("pipeline/module.py", set()),  # mounted, so that a new one needs no build
        ("modelbuild/module.py", set()),
        ("deployment/module.py", set()),
    ],
)
def test_a_changed_file_renames_the_images_it_goes_into(payload: Path, file: str, expected: set[str]) -> None:
    before = images.tags(payload, BASE)
    (payload / file).write_text("changed\n")
    assert renamed(before, images.tags(payload, BASE)) == expected


def test_new_renamed_and_executable_files_count(payload: Path) -> None:
    names = [images.tags(payload, BASE)["app"]]
    (payload / "app" / "new.py").write_text("")
    names.append(images.tags(payload, BASE)["app"])
    (payload / "app" / "new.py").rename(payload / "app" / "newer.py")
    names.append(images.tags(payload, BASE)["app"])
    (payload / "app" / "newer.py").chmod(0o755)
    names.append(images.tags(payload, BASE)["app"])
    assert len(set(names)) == 4


def test_times_caches_and_the_payloads_place_do_not_count(payload: Path, tmp_path: Path) -> None:
    before = images.tags(payload, BASE)
    copy = tmp_path / "elsewhere"
    shutil.copytree(payload, copy, copy_function=shutil.copyfile)
    (copy / "app" / "__pycache__").mkdir()
    (copy / "app" / "__pycache__" / "module.pyc").write_bytes(b"cache")
    assert images.tags(copy, BASE) == before


def test_another_base_renames_all(payload: Path) -> None:
    before = images.tags(payload, BASE)
    assert renamed(before, images.tags(payload, "debian:trixie-slim")) == SERVICES | {"base"}


def test_a_missing_part_is_named(payload: Path) -> None:
    shutil.rmtree(payload / "worker")
    with pytest.raises(FileNotFoundError, match="worker is missing"):
        images.tags(payload, BASE)


def test_the_base_is_named_by_suite_mirror_and_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "CERTIFICATES", tmp_path)
    names = [
        images.base_tag("trixie", "http://deb.debian.org", None),
        images.base_tag("forky", "http://deb.debian.org", None),
        images.base_tag("trixie", "http://mirror.example", None),
    ]
    (tmp_path / "company.crt").write_text("first")
    names.append(images.base_tag("trixie", "http://deb.debian.org", None))
    (tmp_path / "company.crt").write_text("second")
    names.append(images.base_tag("trixie", "http://deb.debian.org", None))
    assert len(set(names)) == 5
    (tmp_path / "company.crt").unlink()
    assert images.base_tag("trixie", "http://deb.debian.org", None) == names[0]


def test_a_registrys_base_keeps_its_name() -> None:
    assert images.base_tag("trixie", "http://deb.debian.org", "debian:trixie-slim") == "debian:trixie-slim"


@pytest.mark.parametrize("image", images.IMAGES, ids=lambda image: image.name)
def test_whatever_a_dockerfile_copies_counts(image: images.Image) -> None:
    for line in (PAYLOAD_ROOT / image.dockerfile).read_text().splitlines():
        words = line.split()
        if words[:1] != ["COPY"] or any(word.startswith("--from=") for word in words):
            continue
        for source in [word for word in words[1:-1] if not word.startswith("--")]:
            assert any(source == part or source.startswith(f"{part}/") for part in image.parts), source
