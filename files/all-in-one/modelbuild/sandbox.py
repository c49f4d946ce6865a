"""Where a stage runs: as an unprivileged user, in a systemd unit of its own, with only its own folders writable.

A stage parses files that came from others and may run their code. It gets no network once the files are here, no view
of secrets and homes, a limit on memory and time, and what the box's services leave over of processor and disk.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SLICE = "oneboxbuild.slice"
# Passed by name, so that values stay out of command lines.
PASSED = ("HF_ENDPOINT", "OMP_NUM_THREADS", "PYTHONPATH", "LANG")
PASSED_WITH_NETWORK = (
    *("HF_TOKEN_PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_INDEX_URL", "PIP_CERT"),
)


@dataclass(frozen=True)
class Sandbox:
    """`memory_mb` and `seconds` limit each stage."""

    user: str
    memory_mb: int
    seconds: int
    state_dir: Path

    def command(
        self, unit: str, arguments: Sequence[str], *, writable: Path, network: bool, environment: Mapping[str, str]
    ) -> list[str]:
        """The command line that runs `arguments` in the unit; its streams and exit code are the caller's."""
        properties = {
            "User": self.user,
            "WorkingDirectory": os.getcwd(),
            "ReadWritePaths": str(writable),
            "MemoryMax": f"{self.memory_mb}M",
            "MemorySwapMax": "0",
            "RuntimeMaxSec": str(self.seconds),
            "TasksMax": "256",
            "LimitCORE": "0",
            "Nice": "19",
            "IOSchedulingClass": "idle",
            "ProtectSystem": "strict",
            "ProtectHome": "yes",
            "PrivateTmp": "yes",
            "PrivateDevices": "yes",
            "ProtectKernelTunables": "yes",
            "ProtectKernelModules": "yes",
            "ProtectControlGroups": "yes",
            "NoNewPrivileges": "yes",
            "CapabilityBoundingSet": "",
            "RestrictSUIDSGID": "yes",
            "LockPersonality": "yes",
            "PrivateNetwork": "no" if network else "yes",
            # Secrets, the database and the lock. Fetching reads the hub's token there, which is its user's alone.
            "InaccessiblePaths": f"-{self.state_dir / 'secrets'} -{self.state_dir / 'postgres'}",
        }
        passed = PASSED_WITH_NETWORK if network else ()
        names = [name for name in (*PASSED, *passed) if name in environment]
        scratch = writable / "tmp"
        return [
            *("systemd-run", "--quiet", "--pipe", "--wait", "--service-type=exec"),
            *(f"--unit={unit}", f"--slice={SLICE}"),
            *(f"--property={name}={value}" for name, value in properties.items()),
            *(f"--setenv={name}" for name in names),
            *(f"--setenv={name}={scratch}" for name in ("HOME", "TMPDIR")),
            *arguments,
        ]


def unit_result(unit: str) -> str:
    """How a failed unit ended, as systemd says it: oom-kill, timeout, signal, exit-code, …; "unknown" if it is gone."""
    show = ["systemctl", "show", "--property=Result", "--property=LoadState", unit]
    answer = subprocess.run(show, check=False, capture_output=True, text=True).stdout
    told = dict(line.partition("=")[::2] for line in answer.splitlines())
    return told.get("Result", "unknown") if told.get("LoadState") == "loaded" else "unknown"


def why_ended(stage: str, code: int, result: str, sandbox: Sandbox, unit: str) -> str:
    """A sentence on a stage that ended without saying why, from systemd's word for it."""
    if result == "oom-kill":
        why = f"it needed more than {sandbox.memory_mb} MB of memory. Raise models_build_memory_mb"
    elif result == "timeout":
        why = f"it needed more than {sandbox.seconds} s. Raise models_build_seconds"
    else:
        why = f"it ended by {result} and said nothing. Read `journalctl --unit={unit}` and the end of the build's log"
    return f"The stage {stage} was stopped (exit code {code}): {why}, and run this again: finished stages are kept."


def stop_unit(unit: str) -> None:
    """End what an earlier run left of a unit; nothing happens if there is none."""
    subprocess.run(["systemctl", "stop", unit], check=False, capture_output=True)
    subprocess.run(["systemctl", "reset-failed", unit], check=False, capture_output=True)
