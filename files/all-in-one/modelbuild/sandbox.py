"""Where a stage runs: as an unprivileged user, in a systemd unit of its own, with only its own folders writable.

A stage parses files that came from others and may run their code. It gets no network once the files are here, no view
of secrets and homes, a limit on memory and time, and what the box's services leave over of processor and disk.
"""

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelbuild.errors import BuildError

SLICE = "oneboxbuild.slice"
# Passed by name, so that values stay out of command lines.
PASSED = ("HF_ENDPOINT", "OMP_NUM_THREADS", "PYTHONPATH", "LANG")
PASSED_WITH_NETWORK = (
    *("HF_TOKEN_PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_INDEX_URL", "PIP_CERT"),
)

# What ProtectHome and PrivateTmp take out of sight.
UNSEEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")


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
        # The lock itself is replaced with each renewal, which would end its being hidden; its mode keeps it closed.
        hidden = ("secrets", "postgres", "lock.guard", *(() if network else ("hub",)))
        properties = {
            "User": self.user,
            "WorkingDirectory": os.getcwd(),
            "ReadWritePaths": str(writable),
            "MemoryMax": f"{self.memory_mb}M",
            "MemorySwapMax": "0",
            "RuntimeMaxSec": str(self.seconds),
            "TasksMax": "256",
            "LimitCORE": "0",
            # Short of memory, the kernel takes the build, never what serves.
            "OOMScoreAdjust": "1000",
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
            "InaccessiblePaths": " ".join(f"-{self.state_dir / name}" for name in hidden),
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


def check_seen(folder: Path, user: str) -> None:
    """BuildError unless a stage that runs as `user` can read the whole model folder."""
    if not folder.is_dir():
        raise BuildError(f"The model folder {folder} does not exist on this machine. Put the model there first.")
    where = folder.resolve()
    if hiding := unseen_below(where):
        raise BuildError(
            f"The model folder {folder} is {where}, below {hiding}, which builds do not see: they run as {user}, "
            f"without homes and temporary folders. Put the model below /srv or /opt, readable for {user}, and write "
            "that path in its profile."
        )
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise BuildError(f"There is no user {user} on this machine; the role model_builder creates it.") from None
    identity = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    find = ["find", str(where), "-not", "-readable", "-print", "-quit"]
    found = subprocess.run(["setpriv", *identity, *find], check=False, capture_output=True, text=True, cwd="/")
    if found.returncode or found.stdout:
        what = found.stdout.strip() or found.stderr.strip()
        raise BuildError(
            f"The model folder {folder} cannot be read by {user}, as whom builds run ({what}). Let that user read it, "
            f"with `chmod -R o+rX {where}` and o+x for each folder above it, or put a copy below /srv or /opt."
        )


def unseen_below(path: Path) -> str | None:
    """Which of the folders that builds do not see `path` lies in."""
    return next((hiding for hiding in UNSEEN if path.is_relative_to(hiding)), None)
