"""Our modules, run by Ansible on this machine, the way a playbook runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ANSIBLE = Path(sys.executable).with_name("ansible")


def run(module: str, **arguments: object) -> dict[str, Any]:
    """What the module answers to these arguments, with Ansible's exit code as `rc`."""
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }
    command: list[str | Path] = [ANSIBLE, "localhost", "--inventory=localhost,", "--connection=local"]
    command += [f"--module-name={module}", f"--args={json.dumps(arguments)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    answer: dict[str, Any] = json.loads(done.stdout.partition("=>")[2])
    return answer | {"rc": done.returncode}
