"""List what submitter, supervisor and the processes in a sandbox agree on.

Folders, environment variables, files, control lines and exit codes.
"""

from __future__ import annotations

CODE_FOLDER = "/app/code"
"""Where the source tree is inside a sandbox."""

OWN_FOLDER = ".modalrun-"
"""Begin of the name of a folder of modalrun's own in a sandbox.

A sandbox that is kept warm has a copy of the source tree in one for each step."""

PACKAGE_FILE = "/opt/modalrun/modalrun.zip"
"""Where modalrun itself is mounted on Modal."""

LAST_LINES = 6
"""Lines of a traceback, or of a step's output, that are told with its failure."""

# Modules that run as processes in the run sandbox.
DRIVER_MODULE = "modalrun.driver.per_step"
"""The driver of a `per_step` run."""
DYNAMIC_MODULE = "modalrun.driver.dynamic"
"""The process that runs a dynamic pipeline."""

BROKER_MODULE = "modalrun.driver.sandbox_broker"
"""The process that creates the step sandboxes of a dynamic pipeline."""

WORKER_MODULE = "modalrun.driver.step_worker"
"""The first process of a step sandbox that is kept warm, in place of the supervisor."""

MODAL_TOKEN = ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")
"""The variables of the token that a driver creates sandboxes with."""

# Variables of every sandbox.
ORCHESTRATOR_RUN_ID = "MODALRUN_ORCHESTRATOR_RUN_ID"
"""ZenML's orchestrator run id, which ties the steps in a sandbox to their run."""
RUN_ID = "MODALRUN_RUN_ID"
"""ZenML's run id."""
TIMEOUT = "MODALRUN_TIMEOUT"
"""The sandbox's timeout in seconds."""
CREATED = "MODALRUN_CREATED"
"""When its creation was asked for (seconds since 1970), by the clock of the process that did so.

Unset with a GPU, for which the sandbox may have waited."""
GPU = "MODALRUN_GPU"
"""The GPU that the sandbox was created with; unset for a CPU sandbox."""

# Variables of the run sandbox.
MAX_PARALLELISM = "MODALRUN_MAX_PARALLELISM"
"""How many steps may run at the same time in one process; 1 if unset."""
TAKE_OVER = "MODALRUN_TAKE_OVER"
"""Set for a driver that continues a run whose earlier driver has ended."""

# Variables of a step sandbox.
STEP = "MODALRUN_STEP"
"""The step's invocation id; no other sandbox has it."""
CHILD = "MODALRUN_CHILD"
"""What precedes the invocation id in the step's label; set for a child pipeline's step only."""
STEP_RUN = "MODALRUN_STEP_RUN"
"""The step run record to execute again: a new record would use up a retry of the user's."""
ATTEMPT = "MODALRUN_ATTEMPT"
"""The number of ZenML's record of the step that this sandbox executes, from 1."""
STEP_METADATA = "MODALRUN_STEP_METADATA"
"""A JSON object with the fields of `StepMetadata` that are known before the sandbox exists."""

# Variables of a step sandbox that is kept warm (`driver/step_worker.py`).
KEEP_WARM = "MODALRUN_KEEP_WARM"
"""How many seconds it waits for another step."""
ORDER = "MODALRUN_ORDER"
"""The secret of the order for its first step, which the report of the step's end repeats."""

# Variables that the supervisor sets for its child.
STARTED = "MODALRUN_STARTED"
"""When the supervisor began; the step worker sets it for its first step (seconds since 1970)."""
ENDED = "MODALRUN_ENDED"
"""When the process ended whose end `driver.finalize` records (seconds since 1970)."""
CONTROL = "MODALRUN_CONTROL"
"""The descriptor that control lines are read from."""
EVENT_KEY = "MODALRUN_EVENT_KEY"
"""The descriptor from which the child reads the key of its events (`run/event_proof.py`)."""
BROKER = "MODALRUN_BROKER"
"""The descriptor of the socket on which a dynamic run asks for sandboxes."""
END_REASON_FILE = "MODALRUN_END_REASON_FILE"
"""The file in which the supervisor writes why it ends its child, unless it has got SIGTERM."""
EXIT_CODE_FILE = "MODALRUN_EXIT_CODE_FILE"
"""The file in which a process writes its exit code; a user's `os._exit` doesn't."""
RUNNING_STEPS_FILE = "MODALRUN_RUNNING_STEPS_FILE"
"""The file in which a dynamic run lists the steps that run in its process, as JSON."""
DEATH = "MODALRUN_DEATH"
"""Why the earlier process of a dynamic run died, and what it had listed: a JSON array."""
USAGE_FILE = "MODALRUN_USAGE_FILE"
"""The file in which the supervisor and the processes below it keep what steps use."""
STOP_FILE = "MODALRUN_STOP_FILE"
"""The file that a driver creates when it is asked to stop, for the driver that replaces it."""

# Control lines.
STOP = "stop"
"""Start nothing new, let running steps finish, then end the run as stopped."""
END = "end "
"""To the supervisor of a step: end it as at its own deadline, for the reason that follows."""

STOP_CLAUSE = "the run was asked to stop"
"""Why nothing new starts after a request to stop, as a part of a sentence."""
STOP_REASON = f"{STOP_CLAUSE.capitalize()}."
"""The reason of a run that ends as stopped after it."""

NOT_BEGUN = "The step's function had not begun."
"""What follows the reason of a step that was ended before, as in a long import."""

DELETED_CLAUSE = "the run's record was deleted in ZenML"
"""Why nothing new starts once nothing can be recorded, as a part of a sentence."""
DELETED_REASON = "The run's record was deleted in ZenML."

# Exit codes of a sandbox; `modalrun.run.sandbox_exit` tabulates what they mean.
EXIT_COMPLETED = 0
EXIT_FAILED = 1
EXIT_UNRECORDED = 70
"""The process has failed and could not record it."""
EXIT_OUT_OF_MEMORY = 71
"""Of a step sandbox only: the kernel killed the step for want of memory."""
EXIT_UNPREPARED = 72
"""The files that a step or a run needs could not be created, so it has not begun."""
EXIT_TIMED_OUT = 124
EXIT_INTERRUPTED = 130
"""The sandbox got SIGINT."""
EXIT_KILLED = 137
EXIT_TERMINATED = 143

TERMINATED_REASON = "The sandbox received a termination signal."
"""The reason that belongs to `EXIT_TERMINATED`."""
PREEMPTED_REASON = "The sandbox was interrupted (SIGINT), as Modal does before it preempts one."
"""The reason that belongs to `EXIT_INTERRUPTED` (modal.com/docs/guide/preemption, 2026-11-28)."""
