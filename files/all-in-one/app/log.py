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
_guard = threading.Lock()
stream = sys.stdout


def log(event: str, level: str = "info", **fields: Any) -> None:
    """Write one event. Values must be JSON."""
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
            log(record.name, record.levelname.lower(), message=record.getMessage())


def take_over_logging() -> None:
    """Libraries' warnings and errors go the same way."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Handler()], force=True)


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
