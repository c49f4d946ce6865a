"""Errors of the store."""

from psycopg_pool import PoolTimeout


class StoreError(RuntimeError):
    """Something about the stored state or its configuration. The message is one sentence that names the next step."""


class NoGenerationError(StoreError):
    """A generation is not there any more: it was dropped."""


class BusyError(PoolTimeout):
    """The database answers, but every connection of the pool was in use for as long as a request waits for one."""
