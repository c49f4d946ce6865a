"""How many inferences may run at once: what the scheduler and the cgroup grant, never the host's core count."""

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_threads(cgroup_root: Path = CGROUP_ROOT, membership: Path = MEMBERSHIP) -> int:
    """Threads that can really run in parallel: min(affinity, ceil(CPU quota)), at least 1."""
    granted = len(os.sched_getaffinity(0))
    quota = cpu_quota(cgroup_root, membership)
    if quota is not None:
        granted = min(granted, math.ceil(quota))
    return max(1, granted)


def cpu_quota(cgroup_root: Path = CGROUP_ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """The tightest CPU quota in cores of this process's cgroup and its ancestors (v1 and v2), None without one."""
    quotas = [
        quota
        for mount, group in _groups(cgroup_root, membership)
        for folder in _with_ancestors(mount, group)
        if (quota := _read_quota(folder)) is not None
    ]
    return min(quotas, default=None)


def _groups(cgroup_root: Path, membership: Path) -> list[tuple[Path, str]]:
    """(mount point, group path) pairs that may hold a CPU quota. A missing membership file means the root group."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = ["0::/"]
    groups = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            groups.append((cgroup_root, group))
        elif "cpu" in controllers.split(","):
            groups += [(cgroup_root / name, group) for name in (controllers, "cpu")]
    return groups


def _with_ancestors(mount: Path, group: str) -> list[Path]:
    """The group's folder and all above it up to the mount point: in a container only the mount point may exist."""
    parts = [part for part in group.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _read_quota(folder: Path) -> float | None:
    v2 = _words(folder / "cpu.max")
    if v2 and v2[0] != "max":
        return int(v2[0]) / int(v2[1])
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return int(quota[0]) / int(period[0])
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
