"""The audit log: one JSON line for each change that an operator may want to trace."""

import datetime
import json
import os
from pathlib import Path
from typing import Any


def audit(state_dir: Path, entry: dict[str, Any]) -> None:
    """Append `entry` with time and user to STATE_DIR/audit.log, on disk before this returns."""
    state_dir.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
    line = json.dumps({"time": now, "user": user, **entry}, ensure_ascii=False) + "\n"
    # One write of one short line: concurrent writers do not mix with O_APPEND.
    descriptor = os.open(state_dir / "audit.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        os.write(descriptor, line.encode("utf-8"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
