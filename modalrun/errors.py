"""Define the errors that modalrun reports, each with its exit code.

The tree has one branch per decision that a caller (a person or a CI job) makes:

    Exception
    └── ModalrunError               a message, a hint, an exit code; shown without a traceback
        ├── RunFailedError       1  a step raised, or its process died
        ├── UsageError           2  the command line or the run spec is wrong; nothing was created
        ├── AuthenticationError  3  not authenticated, or not allowed
        ├── NotFoundError        4  run, deployment, stack or app not found
        │   └── NoRunError          ZenML has no run of an id, or no longer
        ├── CapacityError        5  no capacity, quota or rate limit
        │   └── ConflictError       Modal can't do it in its present state, such as start a sandbox
        ├── RunTimeoutError      6  the run's own timeout passed
        ├── RunStoppedError      7  stopped or terminated by somebody
        ├── ConnectionLostError  8  the run may still be going
        │   ├── MachineError        this machine lacks memory, room on a disk, a file
        │   └── ServerError         the ZenML server has had errors of its own for minutes
        ├── UnknownOutcomeError  9  the submission may or may not have been accepted
        ├── CostLimitError      10  over the cost limit; nothing was created
        └── InternalError       70  an error in modalrun itself
    BaseException
    ├── KeyboardInterrupt      130  Ctrl-C (Python's own class)
    └── Interrupted       143, 129  SIGTERM, SIGHUP

The codes are a contract with CI jobs: they never change. The errors of a run that has ended (1, 6
and 7) are RuntimeErrors too, which ZenML's own orchestrators raise and scripts catch.
"""

from __future__ import annotations

import re
import signal
from typing import ClassVar

_CREDENTIALS = re.compile(
    r"(:/{1,2})[^\s/?#'\"]*@"  # a URL's user and password; a path has lost a slash
    # the same without a scheme, as of a registry; not the tag of an image before its digest
    r"|(?<![\w.+/-])[\w.+-]{1,100}:[^\s/@'\"]{1,200}@(?=[\w.-]{1,200}(?::\d{1,5})?/)"
)
_QUERY = re.compile(
    r"([?&;][\w.-]{0,40}(?:token|key|secret|passw|signature|credential|sig)[\w.-]{0,20}=)[^\s&#'\"]+",
    re.IGNORECASE,
)

_VARIABLES: dict[str, str] = {}
"""Values of variables of this machine that a run spec takes -> the variable, as it is shown."""


LONG_VALUE = 8
"""Characters. A value as long is masked inside of words, too."""


_OWN_WORDS = frozenset({"modal", "local", "pipeline", "per_step", "default", "modalrun"})
"""Values of keys that the commands in hints have, too; the last is the stack that `init` makes."""


def show_as(value: str, variable: str) -> None:
    """Show a variable's name in place of its value from now on: it may be a secret.

    Words that are everywhere (less than 4 characters, or a number, or one of modalrun's) are left.
    """
    if len(value) >= 4 and not value.isdigit() and value not in _OWN_WORDS:
        _VARIABLES[value] = variable


def without_credentials(text: str) -> str:
    """Replace user, password and tokens in the URLs of a text that is shown or stored.

    And the values of variables that a run spec takes.
    """
    for value in sorted(_VARIABLES, key=len, reverse=True):
        if value in text:
            # A short one may be a part of a word. The name of a variable has no backslash.
            around = ("", "") if len(value) >= LONG_VALUE else (r"(?<!\w)", r"(?!\w)")
            text = re.sub(re.escape(value).join(around), _VARIABLES[value], text)
    masked = _CREDENTIALS.sub(lambda found: f"{found[1] or ''}***@", text)
    return _QUERY.sub(r"\1***", masked)


class ModalrunError(Exception):
    """An error that a user sees as a message, never as a traceback.

    Credentials in the URLs of its texts are masked: many texts are those of others.

    Attributes:
        problem: What happened, and to what.
        effect: What it means for a submission, such as "Nothing was created."; None if nothing.
        hint: What to do next; None if the message says it all.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, *, effect: str | None = None, hint: str | None = None) -> None:
        problem = without_credentials(problem)
        # The texts of others are often no sentences.
        end = "" if problem.endswith((".", "!", "?")) else "."
        space = "\n" if "\n" in problem else " "
        super().__init__(f"{problem}{end}{space}{effect}" if effect else problem)
        self.problem = problem
        self.effect = effect
        self.hint = None if hint is None else without_credentials(hint)

    @property
    def message(self) -> str:
        """The problem and its effect; a command that creates nothing shows `problem` alone."""
        return str(self)


class RunFailedError(ModalrunError, RuntimeError):
    """The run failed: a step raised, or the process that ran it died."""

    exit_code = 1


class UsageError(ModalrunError):
    """The command line or the run spec is wrong. Nothing was created."""

    exit_code = 2


class AuthenticationError(ModalrunError):
    """Modal or ZenML did not accept the credentials, or does not allow the call."""

    exit_code = 3


class NotFoundError(ModalrunError):
    """A run, deployment, stack, app, environment or secret does not exist."""

    exit_code = 4


class NoRunError(NotFoundError):
    """ZenML has no run of an id, or no longer."""


class CapacityError(ModalrunError):
    """Modal has no capacity for the request, or a quota or rate limit is reached.

    Attributes:
        rate_limited: Whether a rate limit is reached, which another GPU or region doesn't avoid.
    """

    exit_code = 5

    def __init__(
        self,
        problem: str,
        *,
        effect: str | None = None,
        hint: str | None = None,
        rate_limited: bool = False,
    ) -> None:
        super().__init__(problem, effect=effect, hint=hint)
        self.rate_limited = rate_limited


class ConflictError(CapacityError):
    """Modal can't do it in its present state, such as start a sandbox; a later attempt may work."""


class RunTimeoutError(ModalrunError, RuntimeError):
    """The run took longer than its `timeout`."""

    exit_code = 6


class RunStoppedError(ModalrunError, RuntimeError):
    """Somebody stopped the run or terminated its sandbox."""

    exit_code = 7


class ConnectionLostError(ModalrunError):
    """The connection is lost. A run that had started may still be going."""

    exit_code = 8


class MachineError(ConnectionLostError):
    """This machine fails: memory, room on a disk, a file. A run that had started may be going."""


class ServerError(ConnectionLostError):
    """The ZenML server has answered with errors of its own for minutes."""


class UnknownOutcomeError(ModalrunError):
    """Modal's answer to the submission was lost; the run may or may not have been accepted."""

    exit_code = 9


class CostLimitError(ModalrunError):
    """The run can cost more than its user allows. Nothing was created."""

    exit_code = 10


class InternalError(ModalrunError):
    """An error in modalrun itself; never the user's."""

    exit_code = 70


NOTHING_BEGUN = "Interrupted; nothing was begun."
NOTHING_SUBMITTED = "Interrupted; nothing was submitted."


class Interrupted(BaseException):
    """SIGTERM or SIGHUP arrived. Not an Exception, so that `except Exception` doesn't catch it.

    Attributes:
        number: The signal.
        exit_code: As a shell reports the signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number


class RunStopped(BaseException):
    """Signal that the run was stopped, or had failed, before its sandbox began with it.

    Not an Exception, so that neither a retry nor user code catches it.
    """
