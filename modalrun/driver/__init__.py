"""What runs inside a sandbox. Importing this package imports neither `modal` nor `zenml`."""

from __future__ import annotations

RUN_ID = "MODALRUN_RUN_ID"
"""The variable that carries ZenML's run id."""

MAX_PARALLELISM = "MODALRUN_MAX_PARALLELISM"
"""The variable that carries how many steps may run at the same time in one process; 1 if unset."""

TIMEOUT = "MODALRUN_TIMEOUT"
"""The variable that carries the sandbox's timeout in seconds."""

END_REASON_FILE = "MODALRUN_END_REASON_FILE"
"""The variable that names the file in which the supervisor says why it ends the runner."""

EXIT_COMPLETED = 0
EXIT_FAILED = 1
EXIT_TIMED_OUT = 124
EXIT_UNRECORDED = 70
"""The runner's way to say that it failed and could not record it."""

EXIT_KILLED = 137
EXIT_TERMINATED = 143
"""Exit codes of a sandbox; the shell's for a timeout and for signals, as Modal uses them too."""


class RunStopped(BaseException):
    """Somebody asked ZenML to stop the run. Not an Exception: no retry and no user code sees it."""
