"""Errors of the pipeline."""


class ModelError(RuntimeError):
    """A model folder cannot be served. The message names the folder, what was found and the next step."""


class NotAsProvenError(ModelError):
    """A release's files, or its results on this machine, are not those that were proven; only other files mend that."""


class OverloadedError(RuntimeError):
    """There is no room for more work. `retry_after`: seconds after which there should be, by the measured speed."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AbandonedError(RuntimeError):
    """Nobody waits for the result any more, so it was not computed to its end."""


class TooLongError(ValueError):
    """A text has more tokens than the model reads, and the caller wants to know rather than lose its end."""

    def __init__(self, index: int, tokens: int, limit: int) -> None:
        super().__init__(f"the text at {index} has {tokens} tokens, the model reads {limit}")
        self.index, self.tokens, self.limit = index, tokens, limit
