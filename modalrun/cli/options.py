"""Declare options that several commands share, each once."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modalrun.cli import completion
from modalrun.cli.run_argument import Interruption
from modalrun.errors import NOTHING_BEGUN, UsageError
from modalrun.output.terminal import writer
from modalrun.output.terminal.wrapping import NO_BREAK

if TYPE_CHECKING:
    from decimal import Decimal

    from modalrun.observe.interrupt_prompt import OnInterrupt
    from modalrun.run.outcome import Outcome
    from modalrun.spec.overrides import Override
    from modalrun.spec.run_spec import RunSpec

ORCHESTRATOR = ("settings", "orchestrator")
RESOURCES = ("settings", "resources")

Format = Literal["text", "json"]
Output = Annotated[
    Format, typer.Option("--output", "-o", help="Format of the result: text, or one JSON object.")
]
_SPEC = (
    "The run spec, a YAML file; by default modalrun.yaml or run.yaml of this folder. Or a folder"
    " with one{} a pipeline (training.py:training, my_project.training:pipeline){}."
)
Spec = Annotated[
    Path | None,
    typer.Argument(
        metavar="SPEC",
        help=_SPEC.format(",", ", or a deployment file from 'compile'"),
        show_default=False,
    ),
]
ToCompile = Annotated[
    Path | None,
    typer.Argument(metavar="SPEC", help=_SPEC.format(", or", ""), show_default=False),
]
TargetName = Literal["modal", "local"]
Target = Annotated[
    TargetName | None,
    typer.Option(
        help="Where to run: 'modal' is Modal's cloud, 'local' the local Modal server. Overrides"
        " the run spec."
    ),
]
MaxCost = Annotated[
    str | None,
    typer.Option(
        "--max-cost",
        metavar="USD",
        help="Refuse the run (exit code 10) if timeout x price is above this many dollars.",
    ),
]
Interrupt = Annotated[
    Literal["stop", "detach"] | None,
    typer.Option(
        "--on-interrupt",
        help="What Ctrl-C and SIGTERM do: stop the run by force, or detach from it. By default,"
        " on a terminal Ctrl-C asks and SIGTERM detaches; elsewhere both stop the run.",
    ),
]


@dataclass(frozen=True)
class Given:
    """The values of the shared options.

    Attributes:
        target: Where to run.
        overrides: Values for keys of the run spec.
    """

    target: TargetName | None
    overrides: tuple[Override, ...]

    def load(self, path: Path | None) -> RunSpec:
        """Read a run spec, or the one of this folder, and apply the options.

        Raises:
            UsageError: The spec or an option is wrong.
        """
        from modalrun.spec.run_spec import load_spec

        spec = load_spec(path or Path(), target=self.target, overrides=self.overrides)
        if (used := spec.source.path) != path:
            writer.err(f"Using {used}")
        return spec


def shared(command: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command, which gets their values as its argument `given`."""
    own = inspect.signature(command, eval_str=True).parameters
    common = inspect.signature(_given, eval_str=True).parameters
    parameters = [p for name, p in own.items() if name != "given"]
    parameters += common.values()

    @functools.wraps(command)
    def with_shared_options(**values: Any) -> None:
        flags = {name: values.pop(name) for name in common}
        with Interruption(NOTHING_BEGUN):
            given = _given(**flags)
        command(**values, given=given)

    with_shared_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_shared_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_shared_options


def _given(
    *,
    target: Target = None,
    mode: Annotated[
        Literal["pipeline", "per_step"] | None,
        typer.Option(help="One sandbox for all steps ('pipeline'), or one for each ('per_step')."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.gpus,
            help="GPU type, such as 'A100' or 'A100:2'. Several, separated by commas, are tried in"
            " order.",
        ),
    ] = None,
    cpu: Annotated[float | None, typer.Option(help="CPU cores.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory, such as '16GB' or '16GiB'.")] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            help="Time limit of the run: seconds, or as in '90s', '2h', '1h30m'; at most 24h.",
            metavar="DURATION",
        ),
    ] = None,
    wait_for_capacity: Annotated[
        str | None,
        typer.Option(
            "--wait-for-capacity",
            help="How long to ask Modal again and again for a place, each GPU type in turn, instead"
            " of exit code 5: seconds, or as in '2h'.",
            metavar="DURATION",
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.regions, help="Modal region; several, separated by commas."
        ),
    ] = None,
    cloud: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.clouds, help="Cloud provider: aws, gcp, oci or auto."
        ),
    ] = None,
    env: Annotated[str | None, typer.Option("--env", help="Modal environment.")] = None,
    sync: Annotated[
        bool | None,
        typer.Option(
            "--sync/--async", help="Wait until the run has ended, or return once it is accepted."
        ),
    ] = None,
    max_parallelism: Annotated[
        int | None, typer.Option("--max-parallelism", help="Steps that may run at the same time.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the run; '{date}' and '{time}' are replaced."),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", metavar="NAME=VALUE", help="An argument of the pipeline. Repeatable."
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Run every step, even if ZenML has cached it.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of the run spec, such as 'timeout=2h' or"
            " 'steps.train*.enable_cache=false'. Repeatable.",
        ),
    ] = None,
    source_root: Annotated[
        Path | None,
        typer.Option(
            "--source-root",
            metavar="FOLDER",
            help="Folder of the pipeline's code, which the sandbox gets. Overrides the run spec and"
            " the deployment file.",
        ),
    ] = None,
) -> Given:
    # PyYAML takes a fifth of the time of `--help`.
    from modalrun.spec.overrides import Override, param_option, set_option

    flags: list[tuple[str, tuple[str, ...], Any]] = [
        ("--mode", (*ORCHESTRATOR, "mode"), mode),
        ("--gpu", (*ORCHESTRATOR, "gpu"), _one_or_more(gpu)),
        ("--region", (*ORCHESTRATOR, "region"), _one_or_more(region)),
        ("--cloud", (*ORCHESTRATOR, "cloud"), cloud),
        ("--env", (*ORCHESTRATOR, "modal_environment"), env),
        ("--timeout", (*ORCHESTRATOR, "timeout"), timeout),
        ("--wait-for-capacity", (*ORCHESTRATOR, "wait_for_capacity"), wait_for_capacity),
        ("--max-parallelism", (*ORCHESTRATOR, "max_parallelism"), max_parallelism),
        ("--sync" if sync else "--async", (*ORCHESTRATOR, "synchronous"), sync),
        ("--cpu", (*RESOURCES, "cpu_count"), cpu),
        ("--memory", (*RESOURCES, "memory"), memory),
        ("--name", ("run_name",), name),
        ("--source-root", ("source_root",), source_root and str(Path(source_root).absolute())),
        ("--no-cache", ("enable_cache",), False if no_cache else None),
    ]
    return Given(
        target,
        (
            *(Override(flag, path, value) for flag, path, value in flags if value is not None),
            *(param_option(text) for text in param or ()),
            *(set_option(text) for text in set_ or ()),
        ),
    )


def _one_or_more(text: str | None) -> str | list[str] | None:
    """Read names: `A100,T4`, or a list as ZenML's components take it: `["A100", "T4"]`."""
    if text is None:
        return None
    if listed := re.fullmatch(r"\[(.*)\]", text.strip()):
        return [part.strip(" \"'") for part in listed[1].split(",")]
    return [part.strip() for part in text.split(",")] if "," in text else text


def on_interrupt(option: Literal["stop", "detach"] | None) -> OnInterrupt:
    """Return what signals do; without the option it depends on where this process runs."""
    # A question needs somebody who sees it and a keyboard to answer on.
    is_attended = sys.stdin.isatty() and sys.stderr.isatty()
    return option or ("ask" if is_attended else "stop")


def amount(text: str | None) -> Decimal | None:
    """Parse the value of `--max-cost`.

    Raises:
        UsageError: It is not an amount.
    """
    from decimal import Decimal

    if text is None:
        return None
    found = re.fullmatch(r"\$?([0-9]+(?:\.[0-9]+)?)", text)
    if found is None:
        raise UsageError(
            f"--max-cost {text}: this is not an amount of USD.",
            hint="As in '5' or '$5'. '--timeout 2h' limits the time.",
        )
    return Decimal(found[1])


def moment_option(text: str | None, option: str) -> datetime | None:
    """Parse the value of an option that is a moment.

    Raises:
        UsageError: It is not a moment.
    """
    from modalrun.util.timeparse import moment

    now = datetime.now().astimezone()
    return None if text is None else moment(text, option=option, now=now)


def seconds_option(text: str | None, option: str) -> float | None:
    """Parse the value of an option that is a duration.

    Raises:
        UsageError: It is not a duration.
    """
    from modalrun.util.timeparse import DURATION_FORMS, duration

    try:
        return duration(text) if text is not None else None
    except ValueError:
        raise UsageError(f"{option} must be {DURATION_FORMS}, not {text!r}.") from None


def exit_with(outcome: Outcome) -> None:
    """Print the run's id, if nobody waits for its end, and exit with the outcome's code."""
    if outcome.asynchronous:
        writer.out(outcome.run_id)
    raise typer.Exit(outcome.exit_code)


def confirmed(question: str) -> bool:
    """Ask on the terminal whether to go on."""
    # The answer stands on the same line.
    text = writer.fitted_to_stderr(f"{question}{NO_BREAK}[y/N]:{NO_BREAK}yes")
    return typer.confirm(text.removesuffix(" yes"), err=True, show_default=False, prompt_suffix=" ")
