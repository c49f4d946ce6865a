"""Run a command and SIGKILL it, with all its children, as soon as a line of its output contains the marker.

usage: kill_after.py MARKER COMMAND [ARGUMENT...]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def main(marker: str, command: list[str]) -> int:
    """Exit code 0 if the command was killed at the marker, 1 if it ended before."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="")
        if marker in line:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return 0
    print(f"ended with {process.wait()} before {marker!r} was printed", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
