"""Whether this machine has the memory and the disk that a build takes, beside what runs on it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from modelbuild.errors import BuildError
from modelbuild.profile import Profile
from modelbuild.request import Request
from modelbuild.snapshot import RECORD, snapshot_folder
from modelbuild.workspace import Workspace

# Peak of the export: its libraries, and the weights about four times (2.9 GB were measured with 470 MB).
MEMORY_BASE_MB, MEMORY_FACTOR = 1100, 4
# Stages keep about four times the weights in staging: the export, the fused graph, INT8 and what is being proven.
STAGING_FACTOR = 4
# Of a download of float32 weights; of others more is left.
LEAST_SHARE_IN_INT8 = 0.25
MEMINFO = Path("/proc/meminfo")


def memory_mb(size_mb: int) -> int:
    """Memory that building a model of this download size takes."""
    return MEMORY_BASE_MB + MEMORY_FACTOR * size_mb


def least_weights(profile: Profile) -> int | None:
    """Bytes that the model file of a release will have at least; None where the profile does not say its size."""
    return int(profile.size_mb * 1_000_000 * LEAST_SHARE_IN_INT8) if profile.size_mb else None


def check_room(workspace: Workspace, request: Request, reserve_mb: int) -> None:
    """BuildError if a build could not end well here, or would leave the database less than `reserve_mb` of disk.

    A profile that does not say its size is taken at its word: nothing but the reserve is counted.
    """
    problems = [*_memory(request), *_disk(workspace, request, reserve_mb)]
    if problems:
        raise BuildError(" ".join(problems))


def _memory(request: Request) -> Iterator[str]:
    size = request.profile.size_mb or 0
    lines = MEMINFO.read_text(encoding="ascii").splitlines()
    available = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:"))
    if size and available < memory_mb(size):
        yield (
            f"Memory: {available} MB are available beside what runs; building a model of {size} MB takes about "
            f"{memory_mb(size)} MB. Use a larger VM, or choose a smaller model."
        )


def _disk(workspace: Workspace, request: Request, reserve_mb: int) -> Iterator[str]:
    """A sentence for each file system that is too small for all that is wanted of it."""
    size = request.profile.size_mb or 0
    snapshot = snapshot_folder(workspace, request.profile, request.fingerprint)
    there = _written_mb(workspace.staging(request.id))
    wanted = [
        (workspace.cache_dir, 0 if (snapshot / RECORD).is_file() else size, "the download"),
        (workspace.models_dir, max(0, STAGING_FACTOR * size - there), "the stages"),
        (workspace.state_dir, reserve_mb, "what stays free for the database, models_disk_reserve_mb"),
    ]
    by_device: dict[int, list[tuple[Path, int, str]]] = {}
    for entry in wanted:
        by_device.setdefault(_above(entry[0]).stat().st_dev, []).append(entry)
    for entries in by_device.values():
        folder, needed = _above(entries[0][0]), sum(mb for _, mb, _ in entries)
        free = shutil.disk_usage(folder).free // 1_000_000
        if free < needed:
            parts = ", ".join(f"{mb} MB for {what}" for _, mb, what in entries if mb)
            yield (
                f"Disk: {free} MB are free at {folder}; building {request.profile.name} takes about {needed} MB there "
                f"({parts}). Free some space or enlarge the disk, then run this again."
            )


def _above(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _written_mb(folder: Path) -> int:
    sizes = (os.lstat(path).st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    return sum(sizes) // 1_000_000
