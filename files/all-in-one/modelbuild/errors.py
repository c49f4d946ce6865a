"""Errors of the build."""


class BuildError(RuntimeError):
    """A stage cannot go on. The message names the thing, the value found, what was expected and the next step."""
