"""The options that `submit`, `plan` and `compile` share, each declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from modalrun.spec.overrides import Override
    from modalrun.spec.run_spec import RunSpec

ORCHESTRATOR = ("settings", "orchestrator")
RESOURCES = ("settings", "resources")


class TargetOption(str, Enum):
    """Where sandboxes run."""

    modal = "modal"
    local = "local"


class ModeOption(str, Enum):
    """One sandbox for all steps, or one for each."""

    pipeline = "pipeline"
    per_step = "per_step"


class OutputOption(str, Enum):
    """How a result is printed."""

    text = "text"
    json = "json"


Output = Annotated[OutputOption, typer.Option("--output", "-o", help="How to print it.")]
Spec = Annotated[
    Path,
    typer.Argument(
        metavar="SPEC", help="The run spec, a YAML file, or a deployment file of 'compile'."
    ),
]
Target = Annotated[
    TargetOption | None,
    typer.Option(
        help="Where to run, above what the run spec says: 'modal' is Modal's cloud, 'local' the"
        " local Modal server."
    ),
]
Mode = Annotated[
    ModeOption | None,
    typer.Option(help="One sandbox for all steps ('pipeline'), or one for each ('per_step')."),
]
Gpu = Annotated[
    str | None,
    typer.Option(help="GPU type, as 'A100' or 'A100:2'; several by comma are tried in order."),
]
Cpu = Annotated[float | None, typer.Option(help="CPU cores.")]
Memory = Annotated[str | None, typer.Option(help="Memory, as '16GB' or '16GiB'.")]
Timeout = Annotated[
    int | None, typer.Option(help="Seconds until the run is ended, 1 to 86400.", metavar="SECONDS")
]
Region = Annotated[str | None, typer.Option(help="Modal region; several by comma.")]
Cloud = Annotated[str | None, typer.Option(help="Cloud provider: aws, gcp, oci or auto.")]
Env = Annotated[str | None, typer.Option("--env", help="Modal environment.")]
Sync = Annotated[
    bool | None, typer.Option("--sync/--async", help="Wait for the end of the run, or don't.")
]
MaxParallelism = Annotated[
    int | None, typer.Option("--max-parallelism", help="How many steps may run at once.")
]
Name = Annotated[
    str | None, typer.Option("--name", help="The run's name; {date} and {time} are filled in.")
]
Param = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="An argument of the pipeline. Repeatable."),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Run every step anew.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of the run spec, as 'settings.orchestrator.gpu=H100'. Repeatable.",
    ),
]


@dataclass(frozen=True)
class Given:
    """What the shared options say.

    Attributes:
        target: Where to run.
        overrides: Values for keys of the run spec.
    """

    target: Literal["modal", "local"] | None
    overrides: tuple[Override, ...]

    def load(self, path: Path) -> RunSpec:
        """Read a run spec and apply what was given on the command line.

        Raises:
            UsageError: The spec or an option is wrong.
        """
        from modalrun.spec.run_spec import load_spec

        return load_spec(path, target=self.target, overrides=self.overrides)


def shared(command: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command; it gets what they say as its argument `given`."""
    own = inspect.signature(command, eval_str=True).parameters
    common = inspect.signature(_given, eval_str=True).parameters
    parameters = [p for name, p in own.items() if name != "given"]
    parameters += common.values()

    @functools.wraps(command)
    def with_shared_options(**values: Any) -> None:
        flags = {name: values.pop(name) for name in common}
        command(**values, given=_given(**flags))

    with_shared_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_shared_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_shared_options


def _given(
    *,
    target: Target = None,
    mode: Mode = None,
    gpu: Gpu = None,
    cpu: Cpu = None,
    memory: Memory = None,
    timeout: Timeout = None,
    region: Region = None,
    cloud: Cloud = None,
    env: Env = None,
    sync: Sync = None,
    max_parallelism: MaxParallelism = None,
    name: Name = None,
    param: Param = None,
    no_cache: NoCache = False,
    set_: Set = None,
) -> Given:
    # PyYAML takes a fifth of the time of `--help`.
    from modalrun.spec.overrides import Override, param_option, set_option

    flags: list[tuple[str, tuple[str, ...], Any]] = [
        ("--mode", (*ORCHESTRATOR, "mode"), mode.value if mode else None),
        ("--gpu", (*ORCHESTRATOR, "gpu"), _one_or_more(gpu)),
        ("--region", (*ORCHESTRATOR, "region"), _one_or_more(region)),
        ("--cloud", (*ORCHESTRATOR, "cloud"), cloud),
        ("--env", (*ORCHESTRATOR, "modal_environment"), env),
        ("--timeout", (*ORCHESTRATOR, "timeout"), timeout),
        ("--max-parallelism", (*ORCHESTRATOR, "max_parallelism"), max_parallelism),
        ("--sync" if sync else "--async", (*ORCHESTRATOR, "synchronous"), sync),
        ("--cpu", (*RESOURCES, "cpu_count"), cpu),
        ("--memory", (*RESOURCES, "memory"), memory),
        ("--name", ("run_name",), name),
        ("--no-cache", ("enable_cache",), False if no_cache else None),
    ]
    return Given(
        target.value if target else None,
        (
            *(Override(flag, path, value) for flag, path, value in flags if value is not None),
            *(param_option(text) for text in param or ()),
            *(set_option(text) for text in set_ or ()),
        ),
    )


def _one_or_more(text: str | None) -> str | list[str] | None:
    if text is None or "," not in text:
        return text
    return [part.strip() for part in text.split(",")]
