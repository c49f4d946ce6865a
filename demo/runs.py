"""Keeps runs of the evaluation in a file, each under the commit that it is of."""

import datetime
import subprocess
from pathlib import Path

from onebox.client import OneboxError as DemoError


def record(file: Path, heading: str, text: str) -> None:
    """Append a run to the file that keeps them all, under the commit that it is of."""
    commit = commit_of(file)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    with file.open("a", encoding="utf-8") as runs:
        runs.write(f"\n## {today}, commit {commit}\n\n{heading}\n\n```\n{text}\n```\n")


def commit_of(file: Path) -> str:
    """The checked out commit, and whether anything but the record differs from it."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD").strip()
        top = _git(here, "rev-parse", "--show-toplevel").strip()
        changed = _git(Path(top), "status", "--porcelain", "--", ".", f":!{file.resolve().relative_to(top)}")
    except (OSError, ValueError, subprocess.CalledProcessError):
        raise DemoError(
            f"--record {file} needs a git checkout that holds the file, so that the run can name its commit"
        ) from None
    return f"{commit} with uncommitted changes" if changed.strip() else commit


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout
