"""Read a run spec: a ZenML run configuration plus a few keys of modalrun's, in one YAML file.

Reading needs neither ZenML nor Modal, so that a mistake is reported at once. ZenML checks the
values again when it compiles the pipeline (`modalrun.zenml_api.compiling`).
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.run.run_plan import Target
from modalrun.run.source import Source
from modalrun.spec.overrides import CommandLineSource, Override, command_line, merged
from modalrun.spec.places import TOP_KEYS
from modalrun.spec.precedence import Layers, Origin
from modalrun.spec.sandbox_settings import SandboxSettings, read_sandboxes
from modalrun.spec.schema import COMPILED_KEYS, HOOK_KEYS, INHERITED_KEYS, REFUSED, OurKeys
from modalrun.spec.short_forms import expanded
from modalrun.spec.spec_argument import source_root_of, spec_source
from modalrun.spec.validation import Checker, Mistakes, run_name_problem
from modalrun.spec.yaml_nodes import KeyPath, Scalar
from modalrun.spec.yaml_source import YamlSource
from modalrun.util.nearest import nearest
from modalrun.util.paths import user_path
from modalrun.util.text import shell_word

NAME_ROOT = (
    "Name the folder with the code, which needs one of its own: '--source-root FOLDER', or"
    " 'source_root:' in a run spec."
)
"""What to do where the source root is not the folder with the code."""


@dataclass(frozen=True)
class RerunRequest:
    """Say which run is run again, and how.

    Attributes:
        run_id: ZenML's id of the earlier run.
        begin: The steps to begin with, although they have succeeded.
        source: Its files, which must be as they were; None for those that are there now.
        compiles: Whether its pipeline is compiled anew.
        given: The keys that this command line sets. The rest of the spec is the earlier run's, and
            that may be somebody else's.
    """

    run_id: str
    begin: tuple[str, ...] = ()
    source: Source | None = None
    compiles: bool = False
    given: CommandLineSource = field(default_factory=lambda: command_line(()))


@dataclass(frozen=True)
class RunSpec:
    """Hold a checked run spec, with the command line's overrides.

    Attributes:
        pipeline: The pipeline's source, `my_project.pipelines.training`; "" for a deployment.
        stack: Name or id of the ZenML stack to compile for; None for the active one.
        source_root: The folder that the pipeline is imported from and that the sandbox gets.
        run_configuration: The part for ZenML, as plain values: without settings of sandboxes.
        source, command_line: The file and the overrides, to name the line or flag of a wrong value.
        deployment: A compiled deployment instead of a pipeline: a file, or a snapshot's id or name.
        has_source_root, has_target: Whether the spec or the command line names them.
        own_code: Whether it is compiled from the user's own code, here and now. A deployment may be
            somebody else's: it can't read files outside of the source root, or run commands here.
        layers, step_layers: The settings of the sandboxes of the pipeline, and of single steps.
        notes: Remarks for the user about how the spec was read.
        rerun: The run that it runs again; None for a run of its own.
    """

    pipeline: str
    stack: str | None
    target: Target
    source_root: Path
    run_configuration: Mapping[str, Any]
    source: YamlSource = field(repr=False)
    deployment: str | None = None
    has_source_root: bool = False
    has_target: bool = False
    own_code: bool = True
    layers: Layers = field(default_factory=dict)
    step_layers: Mapping[str, Layers] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    rerun: RerunRequest | None = None
    command_line: CommandLineSource = field(
        default_factory=lambda: command_line(()), repr=False, kw_only=True
    )

    @property
    def has_settings(self) -> bool:
        """Whether it sets anything for sandboxes."""
        layers = [self.layers, *self.step_layers.values()]
        return any(
            layer.settings or layer.resources or layer.docker
            for by_origin in layers
            for layer in by_origin.values()
        )

    @staticmethod
    def of_snapshot(target: Target, source_root: Path, *, own_code: bool) -> RunSpec:
        """Make the spec of a stored deployment that is used as it is, without own settings."""
        source = YamlSource(source_root, {}, {})
        return RunSpec("", None, target, source_root, {}, source, own_code=own_code)

    @property
    def scripted(self) -> bool:
        """Whether a script runs the pipeline: there is no run spec and no command line."""
        return self.own_code and not self.pipeline and self.deployment is None

    @property
    def root_hint(self) -> str:
        """What to do where the source root is not the folder with the code."""
        if self.rerun is not None:
            folder = self.rerun.source.root if self.rerun.source else ""
            return (f"It was submitted from {folder}. " if folder else "") + (
                "Run the command in the folder of what was submitted, or name that folder with"
                " '--source-root FOLDER'."
            )
        return NAME_ROOT

    def hint_to_move_root(self, folder: Path, pipeline: str = "") -> str:
        """Return how to make another folder the source root, as the begin of a sentence.

        Args:
            pipeline: The pipeline's source there; "" if it is the same.
        """
        option = f"'--source-root {shell_word(str(folder))}'"
        moves = folder != self.source_root.resolve()
        if not self.source.lines:
            # There is no file to write it to.
            typed = "'{}:{}'".format(*pipeline.rsplit(".", 1)) if pipeline else ""
            return f"Use {' with '.join(filter(None, [typed, option * moves]))}"
        name = os.path.relpath(folder, self.source.path.resolve().parent)
        keys = [f"'source_root: {name}'"] * moves + [f"'pipeline: {pipeline}'"] * bool(pipeline)
        instead = "" if pipeline else f" (or {option})"
        return f"Set {' and '.join(keys)} in the run spec{instead}"

    def error(
        self, key_path: Iterable[str | int], problem: str, hint: str | None = None
    ) -> UsageError:
        """Make an error that names the line of a key, or the flag that set it."""
        return UsageError(f"{self.where(key_path)}: {problem}", hint=hint)

    def where(self, key_path: Iterable[str | int]) -> str:
        """Return the flag that sets a key, else its line, for messages."""
        path = tuple(key_path)
        return self.command_line.flag(path) or self.source.where(path)

    def check_run_name(self, template: str, substitutions: Collection[str]) -> None:
        """Check a run name against the placeholders that a pipeline adds to ZenML's own.

        Raises:
            UsageError: ZenML can't format it.
        """
        if problem := run_name_problem(template, substitutions):
            raise self.error(("run_name",), *problem)

    def scalar(self, path: KeyPath) -> Scalar | None:
        """Return what is written for a value; None if that is simply its text."""
        given = self.command_line.flag(path)
        return (self.command_line if given else self.source).scalar(path)


def target_of_spec(path: Path | None) -> Target:
    """Return the target of a spec that may be wrong; "modal" if it names none."""
    name = None
    if path is not None:
        with contextlib.suppress(UsageError):
            name = nearest(str(spec_source(path, None).data.get("target")), ("modal", "local"))
    return "local" if name == "local" else "modal"


def load_spec(
    path: Path, *, target: Target | None = None, overrides: Sequence[Override] = ()
) -> RunSpec:
    """Read and check a run spec.

    Args:
        path: The YAML file, or instead of one its folder, a deployment file (`.json`) or a pipeline
            (`training.py:training`, `my_project.training:pipeline`).
        target, overrides: What the command line sets; it overrides the file.

    Raises:
        UsageError: The file, a key in it or an override is wrong; the message names the place,
            with a line for each mistake.
    """
    flags = command_line(overrides)
    source = spec_source(path, flags.data.get("source_root"))
    return check_spec(source, flags, target=target)


def check_spec(
    source: YamlSource, flags: CommandLineSource, *, target: Target | None = None
) -> RunSpec:
    """Check the keys of a run spec and of a command line; as `load_spec`."""
    mistakes = Mistakes()
    checkers = Checker(source, mistakes), Checker(flags, mistakes)
    for checker in checkers:
        checker.variables()
        checker.note_numbers()
    in_file, in_flags = map(expanded, checkers)

    def mistake(key: str, problem: str, hint: str | None = None) -> None:
        """Collect a mistake at the line, or the flag, that sets a key."""
        given = in_file if in_flags.source.data.get(key) is None else in_flags
        given.error((key,), problem, hint)

    file_keys, flag_keys = _our_keys(in_file), _our_keys(in_flags)
    ours = OurKeys.model_validate(
        merged(file_keys.model_dump(exclude_unset=True), flag_keys.model_dump(exclude_unset=True))
    )
    if not mistakes.found:
        # A key with a wrong value would be reported as missing, too.
        _check_pipeline(mistake, ours)
    if target and "target" in flag_keys.model_fields_set and flag_keys.target != target:
        mistake("target", f"'--target {target}' sets another one.", "Keep one of them.")
    compiled = ours.deployment is not None
    of_file = _sandboxes(in_file, compiled=compiled)
    of_flags = _sandboxes(in_flags, compiled=compiled)
    source_root = _source_root(mistake, source.path.resolve().parent, ours.source_root)
    mistakes.raise_all()
    return RunSpec(
        pipeline=ours.pipeline or "",
        stack=ours.stack,
        target=target or ours.target,
        source_root=source_root,
        run_configuration=_merged(of_file.rest, of_flags.rest, flags),
        source=in_file.source,
        deployment=ours.deployment,
        has_source_root=ours.source_root is not None,
        has_target=bool(target) or "target" in ours.model_fields_set,
        own_code=not compiled,
        layers={Origin.SPEC_PIPELINE: of_file.pipeline, Origin.COMMAND_LINE: of_flags.pipeline},
        step_layers={
            name: {
                origin: settings.steps[name]
                for origin, settings in (
                    (Origin.SPEC_STEP, of_file),
                    (Origin.COMMAND_LINE_STEP, of_flags),
                )
                if name in settings.steps
            }
            for name in {**of_file.steps, **of_flags.steps}
        },
        notes=tuple(mistakes.notes),
        command_line=flags,
    )


def _merged(
    of_file: Mapping[str, Any], of_flags: Mapping[str, Any], flags: CommandLineSource
) -> dict[str, Any]:
    """Merge ZenML's part of the command line over that of the file, its steps' included.

    For ZenML a step's own value is above the pipeline's, wherever they are from. A mapping that is
    an argument is one value, and replaced as a whole.
    """
    inherited = {key: value for key, value in of_flags.items() if key in INHERITED_KEYS}
    steps = {
        name: merged(step, {key: inherited[key] for key in inherited.keys() & step.keys()})
        for name, step in (of_file.get("steps") or {}).items()
    }
    result = merged({**of_file, "steps": steps} if steps else of_file, of_flags)
    for override in flags.overrides:
        *above, name = override.path
        if "parameters" in above and isinstance(override.value, Mapping):
            functools.reduce(operator.getitem, above, result)[name] = override.value
    return result


def _our_keys(checker: Checker) -> OurKeys:
    """Return modalrun's own keys of a source, those with right values."""
    data = checker.source.data
    checker.zenml_names((), data, {*TOP_KEYS, *HOOK_KEYS})
    given = {key: data[key] for key in OurKeys.model_fields if data.get(key) is not None}
    right = {k: v for k, v in given.items() if checker.values((), OurKeys, {k: v})}
    for key, problem in REFUSED.items():
        if data.get(key) is not None:
            checker.error((key,), problem)
    return OurKeys.model_validate(right)


def _check_pipeline(mistake: Callable[..., None], ours: OurKeys) -> None:
    if ours.pipeline is None and ours.deployment is None:
        hint = "Name the pipeline by its source, as in 'pipeline: my_project.training.pipeline'."
        mistake("pipeline", "the key 'pipeline' is missing.", hint)
    elif ours.pipeline is not None and ours.deployment is not None:
        hint = "Keep 'pipeline' to compile it, or 'deployment' to use what is compiled."
        mistake("deployment", "both 'pipeline' and 'deployment' are given.", hint)
    elif ours.deployment is not None and ours.stack is not None:
        problem = "a deployment is compiled for its stack; 'stack' can't change it."
        hint = "Remove 'stack', or compile the pipeline for another stack."
        mistake("stack", problem, hint)
    elif ours.pipeline is not None and (
        "." not in ours.pipeline
        or ours.pipeline.endswith(".py")
        or not all(part.isidentifier() for part in ours.pipeline.split("."))
    ):
        problem = f"'{ours.pipeline}' is not a source (module.function)."
        hint = "As in 'pipeline: my_project.training.pipeline', without '.py' or slashes."
        mistake("pipeline", problem, hint)


def _sandboxes(checker: Checker, *, compiled: bool) -> SandboxSettings:
    configuration = {
        HOOK_KEYS.get(str(key), str(key)): value
        for key, value in checker.source.data.items()
        if key not in OurKeys.model_fields and value is not None
    }
    settings = read_sandboxes(checker, configuration, compiled=compiled)
    rest = settings.rest
    checker.zenml_values(rest)
    if compiled:
        fixed: list[tuple[str, ...]] = [(key,) for key in rest if key not in COMPILED_KEYS]
        fixed += [("settings", key) for key in rest.get("settings", {})]
        steps = rest.get("steps", {}).items()
        fixed += [("steps", name, key) for name, step in steps for key in step]
        for at in (one for one in fixed if one not in checker.mistakes.unknown):
            problem = f"'{'.'.join(at)}' is compiled into the deployment and can't be changed."
            checker.error(at, problem, "Compile the pipeline again with it, or remove it.")
    return settings


def _source_root(mistake: Callable[..., None], spec_folder: Path, given: str | None) -> Path:
    if given is None:
        return source_root_of(spec_folder)
    try:
        path = user_path(given, "'source_root'")
    except UsageError as error:
        mistake("source_root", error.problem)
        return spec_folder
    root = (spec_folder / path).resolve()
    if not root.is_dir():
        hint = (
            f"'source_root' is read relative to {spec_folder}; '--source-root FOLDER' is relative"
            " to the current folder."
        )
        mistake("source_root", f"there is no folder {root}.", None if path.is_absolute() else hint)
    return root
