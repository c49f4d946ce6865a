"""Is anybody still waiting for the answer to this request? What nobody waits for need not be computed."""

import threading
from collections.abc import Callable
from contextvars import ContextVar

# Set by the guard for each request, and copied into the thread that answers it.
_gone: ContextVar[threading.Event | None] = ContextVar("gone", default=None)


def begin() -> threading.Event:
    """The event to set when the client of this request hangs up."""
    event = threading.Event()
    _gone.set(event)
    return event


def gone() -> Callable[[], bool]:
    """Tells, from any thread, whether the client of this request has hung up."""
    event = _gone.get()
    return event.is_set if event else lambda: False
