"""Which arithmetic a CPU is said to have."""

from pathlib import Path

import pytest

from pipeline.cpu import classify, detect


@pytest.mark.parametrize(
    ("machine", "flags", "name", "saturates"),
    [
        ("x86_64", {"avx2", "fma"}, "x86-avx2", True),
        ("x86_64", {"avx2", "avx512f", "avx512bw"}, "x86-avx512", True),
        ("x86_64", {"avx2", "avx512f", "avx512bw", "avx512_vnni"}, "x86-vnni", False),
        ("x86_64", {"avx2", "avx_vnni"}, "x86-vnni", False),
        ("AMD64", {"avx2", "avx512_vnni", "amx_int8"}, "x86-amx", False),
        ("x86_64", set(), "x86-other", True),
        ("aarch64", {"asimddp", "i8mm"}, "arm-dotprod", False),
        ("aarch64", {"asimd"}, "arm-other", False),
        ("riscv64", set(), "riscv64-other", False),
    ],
)
def test_a_cpu_is_classified_by_its_int8_instructions(
    machine: str, flags: set[str], name: str, saturates: bool
) -> None:
    cpu = classify(machine, flags)
    assert (cpu.name, cpu.saturates) == (name, saturates)


def test_only_relevant_flags_are_recorded(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sse avx2 fma\n\nprocessor\t: 1\nflags\t\t: fpu avx512_vnni\n")
    assert detect(cpuinfo, "x86_64").flags == ("avx2", "fma")


def test_arm_spells_its_flags_features(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nFeatures : fp asimd asimddp\n")
    assert detect(cpuinfo, "aarch64").name == "arm-dotprod"
