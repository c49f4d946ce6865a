"""Errors of the pipeline."""


class ModelError(RuntimeError):
    """A model folder cannot be served. The message names the folder, what was found and the next step."""


class NotAsProvenError(ModelError):
    """A release's files, or its results on this machine, are not those that were proven; only other files mend that."""
