"""Which INT8 arithmetic this CPU has: the class decides the quantisation recipe and whether a proof still holds."""

import platform
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
X86 = ("x86_64", "amd64")
ARM = ("aarch64", "arm64")
RELEVANT = (
    "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8",
    "asimddp", "i8mm", "sve",
)  # fmt: skip


@dataclass(frozen=True)
class Cpu:
    """`name` is the class: x86-amx, x86-vnni, x86-avx512, x86-avx2, x86-other, arm-dotprod or arm-other."""

    name: str
    flags: tuple[str, ...]

    @property
    def saturates(self) -> bool:
        """True where u8 x s8 products overflow 16 bits, so that weights must keep to 7 bits."""
        return self.name in ("x86-avx512", "x86-avx2", "x86-other")


def detect(cpuinfo: Path = CPUINFO, machine: str | None = None) -> Cpu:
    """Class of the CPU described by `cpuinfo` (a /proc/cpuinfo) of a `machine` (platform.machine())."""
    return classify(machine or platform.machine(), _flags(cpuinfo))


def classify(machine: str, flags: set[str]) -> Cpu:
    """Class for the instruction set flags as the kernel spells them."""
    machine = machine.lower()
    relevant = tuple(flag for flag in RELEVANT if flag in flags)
    if machine in X86:
        return Cpu(_x86_class(flags), relevant)
    if machine in ARM:
        return Cpu("arm-dotprod" if "asimddp" in flags else "arm-other", relevant)
    return Cpu(f"{machine}-other", relevant)


def _x86_class(flags: set[str]) -> str:
    if "amx_int8" in flags:
        return "x86-amx"
    if flags & {"avx512_vnni", "avx_vnni"}:
        return "x86-vnni"
    if "avx512bw" in flags:
        return "x86-avx512"
    return "x86-avx2" if "avx2" in flags else "x86-other"


def _flags(cpuinfo: Path) -> set[str]:
    """Flags of the first CPU listed; an unreadable file means that nothing is known, so nothing is assumed."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return set(value.split())
    return set()
