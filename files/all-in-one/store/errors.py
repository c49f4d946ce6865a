"""Errors of the store."""


class StoreError(RuntimeError):
    """Something about the stored state or its configuration. The message is one sentence that names the next step."""


class NoGenerationError(StoreError):
    """A generation is not there any more: it was dropped."""
