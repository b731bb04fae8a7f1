"""Hide lines that ZenML logs while a step runs and that are of no use to its user.

In the step logs that ZenML stores they stay: a step that prints nothing would have none. Read from
ZenML 0.98.0. Importing this module does not import ZenML.
"""

from __future__ import annotations

import logging
import os

_DEPRECATIONS = "zenml.utils.deprecation_utils"

NOISE: dict[str, str | tuple[str, ...]] = {
    # A thread of ZenML's own begins; the line before reports the step's start.
    "zenml.orchestrators.step_runner": "Initiating heartbeat for step",
    # The supervisor's SIGTERM, whatever the sandbox got; the end of the run says why.
    "zenml.orchestrators.signal_handler": "Received signal",
    # An advertisement, once for each model.
    "zenml.orchestrators.step_run_utils": "Models can be viewed in the dashboard using ZenML Pro",
    # Warnings: ZenML sets these itself, to their defaults, when it compiles a child pipeline. Of
    # those that a user has set, the submission warns.
    _DEPRECATIONS: tuple(
        f"The attribute `{name}` of class `DockerSettings` is deprecated"
        for name in ("copy_files", "copy_global_config", "required_hub_plugins", "build_options")
    ),
}
"""Logger -> how the message begins, or several such texts."""


def hide() -> None:
    """Keep these lines from this process's output, unless it logs for debugging.

    They are filtered where they are logged: there they can't be confused with a line of the user's.
    """
    debugging = os.environ.get("ZENML_LOGGING_VERBOSITY", "").upper() in {"DEBUG", "NOTSET"}
    if debugging or os.environ.get("ZENML_DEBUG", "").lower() in {"1", "y", "yes", "true"}:
        return
    for name in NOISE:
        logging.getLogger(name).addFilter(_is_useful)


def _is_useful(record: logging.LogRecord) -> bool:
    begin = NOISE.get(record.name)
    message = record.getMessage().lstrip()
    highest = logging.WARNING if record.name == _DEPRECATIONS else logging.INFO
    if begin is None or record.levelno > highest or not message.startswith(begin):
        return True
    # The handlers that print are StreamHandlers; the one that stores logs is not (`zenml.logger`).
    storing = [h for h in logging.getLogger().handlers if not isinstance(h, logging.StreamHandler)]
    for handler in storing:
        handler.handle(record)
    return not storing
