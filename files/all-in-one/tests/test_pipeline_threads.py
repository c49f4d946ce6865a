"""How many threads the pipeline takes."""

import os
from pathlib import Path

import pytest

from pipeline.threads import available_threads, cpu_quota


@pytest.fixture
def many_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def _membership(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "membership"
    path.write_text(text)
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_quota_the_affinity_decides(tmp_path: Path, many_cpus: None) -> None:
    assert available_threads(tmp_path, _membership(tmp_path, "0::/\n")) == 16


def test_a_cgroup_v2_quota_caps_the_threads(tmp_path: Path, many_cpus: None) -> None:
    _write(tmp_path / "cpu.max", "200000 100000\n")
    assert available_threads(tmp_path, _membership(tmp_path, "0::/\n")) == 2


def test_part_of_a_core_is_rounded_up(tmp_path: Path, many_cpus: None) -> None:
    _write(tmp_path / "cpu.max", "150000 100000\n")
    assert available_threads(tmp_path, _membership(tmp_path, "0::/\n")) == 2


def test_less_than_a_core_still_gives_one_thread(tmp_path: Path, many_cpus: None) -> None:
    _write(tmp_path / "cpu.max", "10000 100000\n")
    assert available_threads(tmp_path, _membership(tmp_path, "0::/\n")) == 1


def test_the_word_max_is_no_quota(tmp_path: Path) -> None:
    _write(tmp_path / "cpu.max", "max 100000\n")
    assert cpu_quota(tmp_path, _membership(tmp_path, "0::/\n")) is None


def test_the_tightest_ancestor_counts(tmp_path: Path) -> None:
    _write(tmp_path / "outer" / "cpu.max", "100000 100000\n")
    _write(tmp_path / "outer" / "inner" / "cpu.max", "400000 100000\n")
    assert cpu_quota(tmp_path, _membership(tmp_path, "0::/outer/inner\n")) == 1.0


def test_a_cgroup_v1_quota_caps_the_threads(tmp_path: Path, many_cpus: None) -> None:
    _write(tmp_path / "cpu,cpuacct" / "docker" / "abc" / "cpu.cfs_quota_us", "300000\n")
    _write(tmp_path / "cpu,cpuacct" / "docker" / "abc" / "cpu.cfs_period_us", "100000\n")
    membership = _membership(tmp_path, "3:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n")
    assert available_threads(tmp_path, membership) == 3


def test_a_v1_quota_is_found_when_the_container_sees_only_its_own_group(tmp_path: Path) -> None:
    _write(tmp_path / "cpu" / "cpu.cfs_quota_us", "100000\n")
    _write(tmp_path / "cpu" / "cpu.cfs_period_us", "50000\n")
    assert cpu_quota(tmp_path, _membership(tmp_path, "2:cpu,cpuacct:/docker/abc\n")) == 2.0


def test_a_negative_v1_quota_is_none(tmp_path: Path) -> None:
    _write(tmp_path / "cpu" / "cpu.cfs_quota_us", "-1\n")
    _write(tmp_path / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert cpu_quota(tmp_path, _membership(tmp_path, "2:cpu:/\n")) is None


def test_a_missing_cgroup_file_system_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "nothing", tmp_path / "nothing either") is None
