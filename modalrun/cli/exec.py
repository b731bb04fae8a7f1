"""`modalrun exec`."""

from __future__ import annotations

import codecs
import contextlib
import sys
from typing import IO, Annotated, Any

import typer
from typer.core import TyperCommand

from modalrun.cli import completion
from modalrun.cli.run_argument import Interruption, Run, resolved
from modalrun.output.terminal import writer
from modalrun.run.contract import EXIT_KILLED
from modalrun.util import interrupts
from modalrun.util.text import checked_utf8


class AfterDashes(TyperCommand):
    """Take all that follows '--' as the command, also where RUN is left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments."""
        at = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:at])
        ctx.params["command"] = [*(ctx.params["command"] or ()), *args[at + 1 :]]
        return rest


def exec_(
    run: Run = None,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND", help="What to run, after RUN and '--'; without it, a shell."
        ),
    ] = [],  # noqa: B006
    *,
    step: Annotated[
        str | None,
        typer.Option(
            "--step",
            "-s",
            metavar="NAME",
            autocompletion=completion.steps,
            help="The running step whose sandbox is meant; 'child/step' for that of a child"
            " pipeline. It may be left out in 'pipeline' mode, and where one step runs.",
        ),
    ] = None,
) -> int:
    """Run a command, or a shell, in the sandbox of a running step.

    The command runs beside the step, with the sandbox's environment and that of run and step, but
    without ZenML's secrets. Its folder is the source tree. On a terminal it gets one of the same
    size; otherwise input and output are passed on as they are. Its exit code is that of this
    command.

    Exit codes of its own: 2 several steps run, 3 not authenticated, 4 no such run or step, or it
    does not run, 8 connection lost.
    """
    for word in command:
        checked_utf8(word, "COMMAND")
    with Interruption("Interrupted. The command was not run."), resolved(run) as (found, spinner):
        # The modules take a part of the wait, which the spinner shows.
        from modalrun.control import exec as execution

        spinner.show("Connecting to the sandbox")
        place = execution.find_place(found.id, step)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    streams = {
        "stdout": _Output(sys.stdout, raw=terminal),
        "stderr": _Output(sys.stderr, raw=terminal),
    }
    stdin = sys.stdin.fileno()
    with interrupts.raw(stdin) if terminal else contextlib.nullcontext():
        code = execution.execute(
            place,
            command,
            lambda stream, data: streams[stream].write(data),
            stdin=stdin,
            terminal=terminal,
        )
    # It was killed, perhaps by the end of its sandbox.
    if code == EXIT_KILLED and execution.has_ended(place):
        writer.err(f"{place.ended} 'modalrun status {place.run_id}' shows the run.")
    return code


class _Output:
    """A stream of the command: guarded on a terminal that is not the command's own."""

    def __init__(self, stream: IO[str], *, raw: bool) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._guards = stream.isatty() and not raw

    def write(self, data: bytes) -> None:
        if self._guards:
            self._stream.write(self._decoder.decode(data))
            self._stream.flush()
        else:
            writer.pass_on(self._stream, data)
