"""The command line: one module for each command, which parses, calls and renders.

Importing this imports neither `modal` nor `zenml`; each command imports what it needs.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.completion import install_callback, show_callback
from typer.core import TyperGroup

from modalrun import __version__
from modalrun.cli import (
    advise,
    doctor,
    examples,
    init,
    list_runs,
    local,
    logs,
    plan,
    reconcile,
    report,
    rerun,
    resume,
    smoke,
    status,
    stop,
    submit,
)
from modalrun.cli import compile as compile_command
from modalrun.cli import exec as exec_command
from modalrun.errors import (
    InternalError,
    Interrupted,
    ModalrunError,
    UsageError,
    without_credentials,
)
from modalrun.output import in_github_job
from modalrun.output.terminal import writer
from modalrun.util import interrupts
from modalrun.util.machine import machine_error

DEBUG = "MODALRUN_DEBUG"
EXIT_BROKEN_PIPE = 141

COMPLETE = "_MODALRUN_COMPLETE"
"""The variable with which a shell requests completions (Typer)."""

_CREATE_RUNS = frozenset({"submit", "rerun", "resume"})
_CREATE = _CREATE_RUNS | {"smoke", "init", "compile"}
"""The commands whose errors say that nothing was created."""

WIDEST_HELP = 110
"""Columns of the help on a wide terminal; Click would take 80."""

# Newer versions of Typer bring a Click of their own, so the base class is reached through Typer.
_CommandLineError: type[typer.BadParameter] = typer.BadParameter.__mro__[2]

_SHELL = re.compile(r"(?:--debug )?--(install|show)-completion[ =](\S+)")
_SHELLS = ("bash", "zsh", "fish")


class _Commands(TyperGroup):
    """Let a shell be named for completion: Typer's options take the current one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if named := _SHELL.fullmatch(" ".join(args)):
            if named[2] not in _SHELLS:
                raise typer.BadParameter(
                    f"'{named[2]}' is none of the shells {', '.join(_SHELLS)}.",
                    ctx,
                    param_hint=f"--{named[1]}-completion",
                )
            act = install_callback if named[1] == "install" else show_callback
            act(ctx, self.params[0], named[2])
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="modalrun",
    cls=_Commands,
    help="Run ZenML pipelines on Modal, or on a local Modal server with no account.",
    epilog="--install-completion and --show-completion also take a shell: bash, zsh or fish.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST_HELP},
)
app.command("submit")(submit.submit)
app.command("plan")(plan.plan)
app.command("compile")(compile_command.compile_)
app.command("doctor")(doctor.doctor)
app.command("smoke")(smoke.smoke)
app.command("status")(status.status)
app.command("logs")(logs.logs)
app.command("report")(report.report)
app.command("open")(report.open_)
app.command("exec", cls=exec_command.AfterDashes)(exec_command.exec_)
app.command("list")(list_runs.list_)
app.command("advise")(advise.advise)
app.command("reconcile")(reconcile.reconcile)
app.command("stop")(stop.stop)
app.command("rerun")(rerun.rerun)
app.command("resume")(resume.resume)
app.command("init")(init.init)
app.add_typer(local.app, name="local")
examples.add_to(app)


def _show_version(value: bool) -> None:
    if value:
        writer.out(f"modalrun {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show tracebacks, ZenML's own log, and a timeline of a submission."
        ),
    ] = False,
) -> None:
    try:
        os.getcwd()  # noqa: PTH109 - only whether there is one.
    except OSError as error:
        raise UsageError(
            "The current folder does not exist any more.", hint="Change to another folder."
        ) from error
    if debug:
        os.environ[DEBUG] = "1"
        os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "INFO")


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Every error is printed here."""
    with writer.guarded():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:  # noqa: PLR0911 (one return for each kind of error)
    # Before the handlers: a signal until now is told by `main`.
    commands = typer.main.get_command(app)
    interrupts.install()
    try:
        result = commands(list(arguments), prog_name="modalrun", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except _CommandLineError as error:
        shown = io.StringIO()
        error.show(shown)
        # Typer's wording of a wrong choice, since it checks with pydantic.
        writer.err(shown.getvalue().replace(": Value error, ", ": ", 1))
        _show_where(error, arguments)
        _annotate(UsageError(error.format_message()), arguments)
        return error.exit_code
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            # Typer exits when the reader of a pipe has gone (`| head`).
            return EXIT_BROKEN_PIPE
        if COMPLETE in os.environ and isinstance(end.code, int):
            # For fish, the exit code means whether there are completions.
            return end.code
        # Typer's own options: completion is installed or shown, or there is none for this shell.
        return UsageError.exit_code if end.code else 0
    except ModalrunError as error:
        _show(error, arguments)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Interrupted as interruption:
        return interruption.exit_code
    except BrokenPipeError:
        raise
    except (OSError, MemoryError) as error:
        known = machine_error(error, creates_run=_command(arguments) in _CREATE_RUNS)
        _show(known, arguments)
        return known.exit_code
    except Exception as error:
        internal = InternalError(
            f"This is an error in modalrun itself: {type(error).__name__}: {error}",
            hint="Run the command again with --debug and report the output.",
        )
        internal.__cause__ = error
        _show(internal, arguments)
        return internal.exit_code


def _show_where(error: Any, arguments: Sequence[str]) -> None:
    """Print where an option belongs that the command does not know, if it is known elsewhere."""
    if not hasattr(error, "possibilities"):
        return
    if error.option_name == "--debug":
        command = shlex.join(one for one in arguments if one != "--debug")
        writer.err(f"'--debug' stands before the command: modalrun --debug {command}")
    elif error.ctx is not None and error.ctx.info_name == "exec" and "--" not in arguments:
        writer.err("Options of COMMAND stand after '--': modalrun exec RUN -- COMMAND")


def _command(arguments: Sequence[str]) -> str:
    return next((one for one in arguments if not one.startswith("-")), "")


def _show(error: ModalrunError, arguments: Sequence[str]) -> None:
    if os.environ.get(DEBUG):
        writer.err(without_credentials("".join(traceback.format_exception(error))))
    from modalrun.output.terminal.console import print_error

    print_error(error, with_effect=_command(arguments) in _CREATE)
    _annotate(error, arguments)


def _annotate(error: ModalrunError, arguments: Sequence[str]) -> None:
    """Show an error of a submission in a GitHub Actions job also where its page shows it."""
    if in_github_job() and _command(arguments) in _CREATE_RUNS:
        from modalrun.output.github import annotate

        annotate(error)
