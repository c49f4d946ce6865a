"""What the kernel says of a container's memory, in both versions of its files."""

from pathlib import Path

import pytest

from pipeline.cgroup import Memory, memory

MB = 1 << 20


def group(folder: Path, **files: object) -> None:
    """A control group with these files; a `__` in a name stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def membership(tmp_path: Path, text: str) -> Path:
    (tmp_path / "membership").write_text(text)
    return tmp_path / "membership"


def test_file_pages_that_give_way_are_not_used_memory(tmp_path: Path) -> None:
    stat = f"anon {80 * MB}\ninactive_file {30 * MB}\nactive_file 0"
    group(tmp_path, memory__current=100 * MB, memory__max=200 * MB, memory__stat=stat)
    assert memory(tmp_path, membership(tmp_path, "0::/\n")) == Memory(70 * MB, 200 * MB)


def test_a_container_of_cgroup_v1_sees_its_group_at_the_mount_point(tmp_path: Path) -> None:
    stat = f"inactive_file 1\ntotal_inactive_file {30 * MB}"
    files = {"memory__usage_in_bytes": 100 * MB, "memory__limit_in_bytes": 200 * MB, "memory__stat": stat}
    group(tmp_path / "memory", **files)
    assert memory(tmp_path, membership(tmp_path, "4:memory:/docker/abc\n")) == Memory(70 * MB, 200 * MB)


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"memory__current": MB, "memory__max": "max"}, "0::/"),
        ({"memory__usage_in_bytes": MB, "memory__limit_in_bytes": 9223372036854771712}, "4:memory:/"),
    ],
)
def test_without_a_limit_there_is_none(tmp_path: Path, files: dict[str, object], line: str) -> None:
    group(tmp_path if line == "0::/" else tmp_path / "memory", **files)
    assert memory(tmp_path, membership(tmp_path, f"{line}\n")) == Memory(MB, None)


def test_the_group_itself_is_counted_and_the_tightest_limit_above_it_holds(tmp_path: Path) -> None:
    group(tmp_path / "box", memory__current=90 * MB, memory__max=100 * MB)
    group(tmp_path / "box" / "app", memory__current=10 * MB, memory__max="max")
    assert memory(tmp_path, membership(tmp_path, "0::/box/app\n")) == Memory(10 * MB, 100 * MB)


def test_where_nothing_is_counted_nothing_is_said(tmp_path: Path) -> None:
    assert memory(tmp_path / "nothing", tmp_path / "nothing either") is None
