"""The errors of our own; bad input raises `ValueError`, as in Keras."""


class RunFailed(Exception):
    """A run that was asked for correctly and could not go on; exit code 1."""


class ProcessLost(RunFailed):
    """Another process of the same run has ended."""
