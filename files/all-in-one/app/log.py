"""One JSON line per event. Never a text, a query or a key."""

import json
import logging
import sys
import threading
import time
import traceback
from contextvars import ContextVar
from typing import Any

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
LEVELS = ("debug", "info", "warning", "error")
_guard = threading.Lock()
_least = LEVELS.index("info")
stream = sys.stdout


def log(event: str, level: str = "info", **fields: Any) -> None:
    """Write one event, if its level is of those that are. Values must be JSON."""
    if LEVELS.index(level) < _least:
        return
    line = {"time": _now(), "level": level, "event": event}
    if request := request_id.get():
        line["request_id"] = request
    text = json.dumps(line | fields, ensure_ascii=False)
    with _guard:
        stream.write(text + "\n")
        stream.flush()


def log_exception(event: str, error: BaseException) -> None:
    """The kind of error and where it came from. Not its message: that may quote what a customer sent."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename.rsplit('/', 3)[-1]}:{frame.lineno}:{frame.name}" for frame in frames[-6:]]
    log(event, "error", error=type(error).__name__, where=where)


class _Handler(logging.Handler):
    """What libraries report, as events. An exception is named, its message is not repeated."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            log_exception(record.name, record.exc_info[1])
        else:
            level = "error" if record.levelno >= logging.ERROR else "warning"
            log(record.name, level, message=record.getMessage())


def set_level(level: str) -> None:
    """The least of LEVELS that is written from now on."""
    global _least  # noqa: PLW0603
    _least = LEVELS.index(level)


def take_over_logging() -> None:
    """Libraries' warnings and errors go the same way, whatever the level is: what else they tell may quote a text."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Handler()], force=True)


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
