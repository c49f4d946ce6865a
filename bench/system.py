"""What the kernel says of memory, CPU time and throttling, and what this machine is."""

import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SMAPS = Path("/proc/self/smaps_rollup")
STATUS = Path("/proc/self/status")
CPUINFO = Path("/proc/cpuinfo")
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Version 1, under the two names that distributions mount it by, then version 2.
CPU_STAT = ("/sys/fs/cgroup/cpu/cpu.stat", "/sys/fs/cgroup/cpu,cpuacct/cpu.stat", "/sys/fs/cgroup/cpu.stat")
PACKAGES = ("onnxruntime", "tokenizers", "numpy", "torch", "transformers", "sentence-transformers", "fastembed")


@dataclass(frozen=True)
class Throttling:
    """Time a control group was held back: seconds, and scheduler periods in all and held back."""

    seconds: float
    periods: int
    throttled: int


def timed(work: Callable[[], object]) -> float:
    """Seconds that it took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu_seconds() -> float:
    """CPU time of this process and all its threads so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory(smaps: Path = SMAPS) -> dict[str, float]:
    """Megabytes of this process: resident, its anonymous and its file part, and its share (PSS)."""
    kilobytes = _kilobytes(smaps.read_text(encoding="ascii"))
    anonymous = kilobytes["Anonymous"]
    return {
        "rss_mb": round(kilobytes["Rss"] / 1024, 1),
        "anonymous_mb": round(anonymous / 1024, 1),
        "file_mb": round((kilobytes["Rss"] - anonymous) / 1024, 1),
        "pss_mb": round(kilobytes["Pss"] / 1024, 1),
    }


def peak_mb(status: Path = STATUS) -> float:
    """The largest resident size so far. Not ru_maxrss: that one is inherited from the process that started this one."""
    return round(_kilobytes(status.read_text(encoding="utf-8"))["VmHWM"] / 1024, 1)


def _kilobytes(text: str) -> dict[str, int]:
    fields = [line.split() for line in text.splitlines()]
    return {words[0].rstrip(":"): int(words[1]) for words in fields if len(words) == 3 and words[2] == "kB"}


def throttling(text: str) -> Throttling:
    """What a cpu.stat says; version 1 counts nanoseconds, version 2 microseconds. ValueError where it says nothing."""
    fields = {key: int(value) for key, _, value in (line.partition(" ") for line in text.splitlines())}
    if "throttled_time" in fields:
        seconds = fields["throttled_time"] / 1e9
    elif "throttled_usec" in fields:
        seconds = fields["throttled_usec"] / 1e6
    else:
        raise ValueError(f"cpu.stat has no throttled time, only {', '.join(fields) or 'nothing'}: no quota is set")
    return Throttling(seconds, fields["nr_periods"], fields["nr_throttled"])


def read_throttling() -> Throttling:
    """Of the control group this process sees as its root: right inside a container."""
    for name in CPU_STAT:
        if Path(name).is_file():
            return throttling(Path(name).read_text(encoding="ascii"))
    raise FileNotFoundError(f"none of {', '.join(CPU_STAT)} exists: is the cpu controller mounted?")


def machine() -> dict[str, Any]:
    """CPU, cores, clock governor, load, memory, kernel, and the versions of everything that computes."""
    from pipeline.cpu import detect  # noqa: PLC0415  (parsing needs no pipeline)

    cpu = detect()
    return {
        "cpu": _first("model name", CPUINFO) or platform.processor() or platform.machine(),
        "class": cpu.name,
        "flags": list(cpu.flags),
        "cores": len(os.sched_getaffinity(0)),
        "governor": GOVERNOR.read_text(encoding="ascii").strip() if GOVERNOR.is_file() else "not visible",
        "load_before": round(os.getloadavg()[0], 2),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release(),
        "large_pages": _large_pages(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def _large_pages() -> str:
    """The kernel's choice: always, madvise (who asks for them) or never."""
    return LARGE_PAGES.read_text(encoding="ascii").partition("[")[2].partition("]")[0] if LARGE_PAGES.is_file() else "?"


def stolen(before: list[int], after: list[int]) -> float:
    """Share of CPU time that the hypervisor gave to others between two reads of cpu_ticks()."""
    spent = [late - early for early, late in zip(before, after, strict=True)]
    return round(spent[7] / max(1, sum(spent[:8])), 4)


def cpu_ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]]


def _first(key: str, file: Path) -> str:
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
