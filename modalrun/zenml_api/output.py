"""ZenML's ear for what a step prints, which it keeps as the step's log."""

from __future__ import annotations

import sys

from zenml import logger


def listen() -> None:
    """Have ZenML listen to the standard streams as they are now.

    It lays its own `write` over both when it is imported, once (`zenml/logger.py:783`, 0.98.0).
    Where it was imported before the streams were replaced, as in a warm sandbox, it hears nothing.
    """
    if "write" not in vars(sys.stdout):
        logger._stdout_wrapped = False
    if "write" not in vars(sys.stderr):
        logger._stderr_wrapped = False
    logger.wrap_stdout_stderr()
