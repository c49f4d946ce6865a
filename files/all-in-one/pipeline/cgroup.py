"""The control groups that this process is in (v1 and v2), and what they say of its memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

# Files of v2 and v1: what is used, the limit, and the file pages in `memory.stat` that were not looked at lately.
_MEMORY_FILES = (
    ("memory.current", "memory.max", "inactive_file"),
    ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"),
)
_UNLIMITED = 1 << 60  # v1 writes a number where there is no limit


@dataclass(frozen=True)
class Memory:
    """Bytes. `used` leaves out file pages that the kernel gives away first; `limit` is None without one."""

    used: int
    limit: int | None


def memory(root: Path = ROOT, membership: Path = MEMBERSHIP) -> Memory | None:
    """Memory of this process's group, and the tightest limit of it and its ancestors. None where nothing is counted."""
    used: int | None = None
    limits = []
    for folder in folders("memory", root, membership):
        for current, most, inactive in _MEMORY_FILES:
            limit = words(folder / most)
            if limit and limit[0].isdigit() and int(limit[0]) < _UNLIMITED:
                limits.append(int(limit[0]))
            if used is None and (counted := words(folder / current)):
                used = max(0, int(counted[0]) - _stat(folder).get(inactive, 0))
    return Memory(used, min(limits, default=None)) if used is not None else None


def folders(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Iterator[Path]:
    """Folders that may hold the controller's files: the group's own, then its ancestors' up to the mount point.

    In a container only the mount point may exist.
    """
    for mount, group in _groups(controller, root, membership):
        parts = [part for part in group.split("/") if part not in ("", "..")]
        yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def words(path: Path) -> list[str]:
    """The words of a small file, none where it cannot be read."""
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def _groups(controller: str, root: Path, membership: Path) -> list[tuple[Path, str]]:
    """(mount point, group path) pairs. A missing membership file means the root group."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = ["0::/"]
    groups = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            groups.append((root, group))
        elif controller in controllers.split(","):
            groups += [(root / name, group) for name in dict.fromkeys((controllers, controller))]
    return groups


def _stat(folder: Path) -> dict[str, int]:
    fields = words(folder / "memory.stat")
    return {name: int(value) for name, value in zip(fields[::2], fields[1::2], strict=False)}
