"""The module preflight_facts: what it says of this machine is what the machine's own tools say."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from modules import run


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "current"


def read(link: Path, *folders: Path | str) -> dict[str, Any]:
    answer = run("preflight_facts", deployment=str(link), folders=[str(folder) for folder in folders])
    assert answer["rc"] == 0 and answer["changed"] is False, answer
    return answer


def test_it_names_the_system_its_processor_and_its_memory(link: Path) -> None:
    answer = read(link)
    release = platform.freedesktop_os_release()
    assert (answer["distribution"], answer["distribution_version"]) == (release["ID"], release["VERSION_ID"])
    assert answer["architecture"] == os.uname().machine
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())["MemTotal"]
    assert answer["memory_mb"] == int(memory.split()[0]) // 1024
    assert set(answer["cpu_flags"]) >= ({"fpu", "sse2"} if answer["architecture"] == "x86_64" else {"fp"})


def test_a_folder_that_is_not_there_yet_lies_on_its_parents_disk(link: Path, tmp_path: Path) -> None:
    wanted = tmp_path / "not" / "there" / "yet"
    disks = read(link, wanted, "/proc/sys")["disks"]
    assert disks[str(wanted)]["free"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert os.path.ismount(disks[str(wanted)]["mount"]) and str(wanted).startswith(disks[str(wanted)]["mount"])
    assert disks["/proc/sys"]["mount"].startswith("/proc")


def test_it_sees_who_listens(link: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert address in read(link)["listening"]
    assert address not in read(link)["listening"]


def test_a_link_to_a_deployment_is_a_box(link: Path, tmp_path: Path) -> None:
    assert read(link)["deployed"] is False
    link.symlink_to("releases/gone")
    assert read(link)["deployed"] is False, "what it links to is gone"
    (tmp_path / "releases" / "gone").mkdir(parents=True)
    assert read(link)["deployed"] is True
