"""Errors of the pipeline."""


class ModelError(RuntimeError):
    """A model folder cannot be served. The message names the folder, what was found and the next step."""
