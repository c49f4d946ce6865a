"""The client's stand-in box, and the demo's programs on the import path."""

import sys
from pathlib import Path

from onebox.tests.conftest import key_file, standin

__all__ = ["key_file", "standin"]

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
