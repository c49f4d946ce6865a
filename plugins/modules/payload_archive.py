#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Pack a folder into a tar archive that is the same, byte for byte, for the same content."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: payload_archive
short_description: Pack a folder reproducibly and name the archive by its digest
description:
  - Files only, sorted, owned by root, without times; caches and editor leftovers stay out.
  - An archive that is there already is not written again.
options:
  source:
    description: The folder to pack.
    type: path
    required: true
  cache:
    description: Where archives are kept.
    type: path
    required: true
author: onebox
"""

EXAMPLES = """
- name: Pack the payload
  payload_archive:
    source: files/all-in-one
    cache: .cache/payload
"""

RETURN = """
digest:
  description: First 16 hex digits of the SHA-256 of the uncompressed archive.
  type: str
  returned: always
path:
  description: The archive.
  type: str
  returned: always
"""

LEFT_OUT = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "tests"}


def members(source: Path) -> list[Path]:
    """The files below `source` that belong into the payload, in a stable order."""
    found: list[Path] = []
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        found += [Path(folder) / name for name in files if not name.endswith((".pyc", "~", ".swp"))]
    return sorted(found)


def pack(source: Path) -> bytes:
    """An uncompressed tar of `source`; only a file's path, content and executable bit count."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in members(source):
            entry = tarfile.TarInfo(str(path.relative_to(source)))
            entry.size = path.stat().st_size
            entry.mode = 0o755 if os.access(path, os.X_OK) else 0o644
            entry.uname = entry.gname = "root"
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return buffer.getvalue()


def main() -> None:
    module = AnsibleModule(
        argument_spec={"source": {"type": "path", "required": True}, "cache": {"type": "path", "required": True}},
        supports_check_mode=True,
    )
    source, cache = Path(module.params["source"]), Path(module.params["cache"])
    if not source.is_dir():
        module.fail_json(msg=f"payload_source is {source}, which is not a folder on the controller")
    content = pack(source)
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = cache / f"{digest}.tar.gz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(gzip.compress(content, mtime=0))
        partial.replace(path)
    # Never "changed": the archive is a cache on the controller, and says nothing of the VM.
    module.exit_json(changed=False, digest=digest, path=str(path))


if __name__ == "__main__":
    main()
