"""Lines that ZenML logs while a step runs and that tell its user nothing. Importing this does not
import ZenML. Read from ZenML 0.98.0; where another version words a line otherwise, it is shown.

In the logs that ZenML keeps of a step they stay: a step that prints nothing would have none."""

from __future__ import annotations

import logging
import os

NOISE = {
    # A thread of ZenML's own begins; the line before says that the step has started.
    "zenml.orchestrators.step_runner": "Initiating heartbeat for step",
    # An advertisement, once for each model.
    "zenml.orchestrators.step_run_utils": "Models can be viewed in the dashboard using ZenML Pro",
}
"""Logger -> how the message begins."""


def hide() -> None:
    """Keep these lines from this process's output, unless it is to log for debugging.

    At their source, where they can't be taken for a line of the user's. Warnings and errors pass.
    """
    debugging = os.environ.get("ZENML_LOGGING_VERBOSITY", "").upper() in {"DEBUG", "NOTSET"}
    if debugging or os.environ.get("ZENML_DEBUG", "").lower() in {"1", "y", "yes", "true"}:
        return
    for name in NOISE:
        logging.getLogger(name).addFilter(_is_worth_it)


def _is_worth_it(record: logging.LogRecord) -> bool:
    begin = NOISE.get(record.name)
    if (
        begin is None
        or record.levelno > logging.INFO
        or not record.getMessage().lstrip().startswith(begin)
    ):
        return True
    # What prints is a StreamHandler, and what keeps the logs is none (`zenml.logger`).
    keeping = [
        handler
        for handler in logging.getLogger().handlers
        if not isinstance(handler, logging.StreamHandler)
    ]
    for handler in keeping:
        handler.handle(record)
    return not keeping
