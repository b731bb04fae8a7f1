"""Contract between the submitter and the processes in a sandbox: variables, files, exit codes."""

from __future__ import annotations

WALKER = "modalrun.driver.per_step"
"""The module of the driver of a `per_step` run."""

DYNAMIC = "modalrun.driver.dynamic"
"""The module of the process that runs a dynamic pipeline."""

RUN_ID = "MODALRUN_RUN_ID"
"""The variable that carries ZenML's run id."""

MAX_PARALLELISM = "MODALRUN_MAX_PARALLELISM"
"""The variable that carries how many steps may run at the same time in one process; 1 if unset."""

STEP = "MODALRUN_STEP"
"""The variable that carries the invocation id of a step sandbox's step; only they have it."""

STEP_RUN = "MODALRUN_STEP_RUN"
"""The variable that carries the id of a step run record to execute again, not to add to: ZenML
counts the records of a step against the user's retries."""

STEP_FACTS = "MODALRUN_STEP_FACTS"
"""The variable that carries `facts.StepFacts` as a JSON object: what is known of this sandbox."""

GPU = "MODALRUN_GPU"
"""The variable that carries the GPU that the sandbox was created with, where it has one."""

WAIT = "MODALRUN_WAIT"
"""The variable that a step sandbox has which was created before its turn: how many seconds it
waits at most for its go (`modalrun.driver.control`), once it is ready."""

TAKE_OVER = "MODALRUN_TAKE_OVER"
"""The variable that is set for a driver that goes on where an earlier one of its run ended."""

TIMEOUT = "MODALRUN_TIMEOUT"
"""The variable that carries the sandbox's timeout in seconds."""

END_REASON_FILE = "MODALRUN_END_REASON_FILE"
"""The variable that names the file in which the supervisor says why it ends the runner."""

WORD_FILE = "MODALRUN_WORD_FILE"
"""The variable that names the file in which a step's process leaves its exit code before it ends
with it, so that `os._exit(0)` in a user's code is not taken for success."""

STOP_FILE = "MODALRUN_STOP_FILE"
"""The variable that names the file by which a driver that was asked to stop leaves word of it to
the one that takes over in its sandbox: the line that asked is read only once."""

EXIT_COMPLETED = 0
EXIT_FAILED = 1
EXIT_TIMED_OUT = 124
EXIT_UNRECORDED = 70
"""The runner's way to say that it failed and could not record it."""

EXIT_OUT_OF_MEMORY = 71
"""Of a step sandbox alone: the kernel killed the step for want of memory; recorded as its failure.

Exit codes of a step sandbox and what ZenML's record of the step says then:

    0    completed, cached or skipped
    1    failed (retrying, where the user's retries are not used up)
    71   as 1: out of memory
    124  as 1: it took longer than its timeout. Modal may have been quicker: then as 137
    143  stopped where somebody asked ZenML to stop the run; else as it was, for the driver to judge
    70   as it was: ZenML could not be asked or told
    137  as it was: the process was killed from outside
"""

EXIT_KILLED = 137
EXIT_TERMINATED = 143
"""Exit codes of a sandbox; the shell's for a timeout and for signals, as Modal uses them too."""


class RunStopped(BaseException):
    """Somebody asked ZenML to stop the run. Not an Exception: no retry and no user code sees it."""


CONTROL = "MODALRUN_CONTROL"
"""The variable that names the descriptor which control lines are read from."""


STOP = "stop"
"""Start nothing new; let what runs finish; then end the run as stopped."""


GO = "go"
"""The turn of a step whose sandbox waits has come."""
