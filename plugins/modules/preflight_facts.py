#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""What preflight looks at on a VM, and no more: `ansible.builtin.setup` reads all of its hardware, in every play."""

from __future__ import annotations

import os
import platform

from ansible.module_utils import distro
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: preflight_facts
short_description: Read what a VM is, what it has left, and who listens on it
description:
  - Changes nothing.
options:
  folders:
    description: Folders whose file systems are looked at. One that is not there yet will lie on that of its parents.
    type: list
    elements: path
    default: []
  deployment:
    description: The link to the deployment that serves, where a box is there already.
    type: path
    required: true
author: onebox
"""

EXAMPLES = """
- name: Read what the VM is
  preflight_facts:
    folders: [/opt/models]
    deployment: /opt/onebox/current
  register: machine
"""

RETURN = """
distribution:
  description: The distribution's ID in os-release, such as debian.
  type: str
  returned: always
distribution_version:
  description: Its VERSION_ID, such as 13 or 24.04; empty where it has none.
  type: str
  returned: always
architecture:
  description: The machine's name in uname, such as x86_64.
  type: str
  returned: always
cpu_flags:
  description: Flags of the first CPU; on ARM its features.
  type: list
  returned: always
memory_mb:
  description: Memory in MiB.
  type: int
  returned: always
disks:
  description: For each of O(folders) its file system's mount point, and the bytes that are free on it.
  type: dict
  returned: always
listening:
  description: Addresses that TCP servers listen on, as ADDRESS:PORT.
  type: list
  returned: always
deployed:
  description: Whether O(deployment) is there.
  type: bool
  returned: always
"""

FLAGS = ("flags", "Features")


def cpu_flags() -> list[str]:
    """The flags of the first CPU that /proc/cpuinfo lists."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() in FLAGS:
                return value.split()
    return []


def memory_mb() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (1 << 20)


def disk(folder: str) -> dict[str, str | int]:
    """Mount point and free bytes of the file system that `folder` is on, or will be once it is made."""
    path = os.path.abspath(folder)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return {"mount": path, "free": found.f_bavail * found.f_frsize}


def listening(module: AnsibleModule) -> list[str]:
    """Local addresses of listening sockets; an image without iproute2 has no `ss`, and is not asked."""
    ss = module.get_bin_path("ss")
    if ss is None:
        return []
    _, output, _ = module.run_command([ss, "--no-header", "--listening", "--tcp", "--numeric"], check_rc=True)
    return [line.split()[3] for line in output.splitlines()]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folders": {"type": "list", "elements": "path", "default": []},
            "deployment": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(
        changed=False,
        distribution=distro.id(),
        distribution_version=distro.version(),
        architecture=platform.machine(),
        cpu_flags=cpu_flags(),
        memory_mb=memory_mb(),
        disks={folder: disk(folder) for folder in module.params["folders"]},
        listening=listening(module),
        deployed=os.path.exists(module.params["deployment"]),
    )


if __name__ == "__main__":
    main()
