"""Where a build runs: what it can see, and whether it has memory and disk; real folders, users, file systems."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_graphs

import modelbuild
from modelbuild import room

PAYLOAD = Path(modelbuild.__file__).parent.parent


@pytest.fixture
def srv() -> Iterator[Path]:
    """A folder that builds do see, as pytest's own below /tmp are not."""
    with tempfile.TemporaryDirectory(dir="/srv") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def run(command: str, model: Path, folder: Path, *options: str, **changes: Any) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON line of a command on a prebuilt model in the folder `model`."""
    source = {"type": "folder", "path": str(model)}
    profile = tiny_graphs.profile(source=source, route="prebuilt", file="model.onnx", **changes)
    folders = [f"--{which}-dir={folder / which}" for which in ("models", "cache", "state")]
    done = subprocess.run(
        [sys.executable, "-m", "modelbuild", command, "--profile=-", *folders, *options],
        cwd=PAYLOAD,
        input=json.dumps(profile),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, told


def test_a_model_that_the_build_user_can_read_is_planned(srv: Path) -> None:
    model = tiny_graphs.write_model(srv / "model")
    code, told = run("plan", model, srv, "--sandbox-user=nobody")
    assert code == 0 and told["releases"][0]["present"] is False, told


@pytest.mark.parametrize("hiding", ["/root", "/tmp", "/var/tmp"])
def test_a_model_where_builds_do_not_look_is_refused_by_the_plan(srv: Path, hiding: str) -> None:
    with tempfile.TemporaryDirectory(dir=hiding) as folder:
        model = tiny_graphs.write_model(Path(folder) / "model")
        link = srv / "model"
        link.symlink_to(model)
        for path in (model, link):
            code, told = run("plan", path, srv, "--sandbox-user=nobody")
            assert code == 1 and f"below {hiding}, which builds do not see" in told["error"], told
            assert "below /srv or /opt, readable for nobody" in told["error"]


def test_a_file_that_the_build_user_cannot_read_is_named(srv: Path) -> None:
    model = tiny_graphs.write_model(srv / "model")
    (model / "config.json").chmod(0o600)
    code, told = run("plan", model, srv, "--sandbox-user=nobody")
    assert code == 1 and f"cannot be read by nobody, as whom builds run ({model}/config.json)" in told["error"], told
    (model / "config.json").chmod(0o644)
    srv.chmod(0o700)
    code, told = run("plan", model, srv, "--sandbox-user=nobody")
    assert code == 1 and "Permission denied" in told["error"] and "o+x for each folder above it" in told["error"], told


def test_a_build_that_the_disk_cannot_hold_does_not_start(srv: Path) -> None:
    """A file system of 64 MB with everything on it; the model says that it has 100 MB."""
    model = tiny_graphs.write_model(srv / "model")
    small = srv / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(small)], check=True)
    try:
        code, told = run("build", model, small, "--reserve-mb=30", size_mb=100)
        assert code == 1, told
        for part in ("Disk: ", f"free at {small}", "takes about 530 MB", "100 MB for the download", "30 MB for what"):
            assert part in told["error"]
        assert list(small.glob("models/releases/*")) == list(small.glob("cache/snapshots/*")) == []
        code, told = run("build", model, small, "--reserve-mb=100")
        assert code == 1 and "models_disk_reserve_mb" in told["error"], told
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_build_that_the_memory_cannot_hold_does_not_start(srv: Path) -> None:
    total = next(int(line.split()[1]) // 1024 for line in room.MEMINFO.read_text().splitlines() if "MemTotal" in line)
    code, told = run("build", tiny_graphs.write_model(srv / "model"), srv, size_mb=total // 4)
    assert code == 1, told
    assert told["error"].startswith("Memory: ") and "are available beside what runs" in told["error"]
