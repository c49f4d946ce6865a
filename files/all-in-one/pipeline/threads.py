"""How many inferences may run at once: what the scheduler and the cgroup grant, never the host's core count."""

import math
import os
from pathlib import Path

from pipeline.cgroup import MEMBERSHIP, ROOT, folders, words


def available_threads(cgroup_root: Path = ROOT, membership: Path = MEMBERSHIP) -> int:
    """Threads that can really run in parallel: min(affinity, ceil(CPU quota)), at least 1."""
    granted = len(os.sched_getaffinity(0))
    quota = cpu_quota(cgroup_root, membership)
    if quota is not None:
        granted = min(granted, math.ceil(quota))
    return max(1, granted)


def cpu_quota(cgroup_root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """The tightest CPU quota in cores of this process's cgroup and its ancestors (v1 and v2), None without one."""
    quotas = [quota for folder in folders("cpu", cgroup_root, membership) if (quota := _read_quota(folder)) is not None]
    return min(quotas, default=None)


def _read_quota(folder: Path) -> float | None:
    v2 = words(folder / "cpu.max")
    if v2 and v2[0] != "max":
        return int(v2[0]) / int(v2[1])
    quota, period = words(folder / "cpu.cfs_quota_us"), words(folder / "cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return int(quota[0]) / int(period[0])
    return None
