"""The run spec: a ZenML run configuration plus a few keys of ours, in one YAML file.

Reading a spec needs neither ZenML nor Modal, so that a misspelt key is reported at once. What
ZenML has to say about the values comes later, in `modalrun.zenml_api`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.run.run_plan import Target
from modalrun.spec import zenml_keys
from modalrun.spec.mistakes import Mistakes
from modalrun.spec.overrides import CommandLineSource, Override, command_line, merged
from modalrun.spec.precedence import Layers, Origin
from modalrun.spec.sandbox_settings import Sandboxes, read_sandboxes
from modalrun.spec.schema import (
    COMPILED_KEYS,
    REFUSED,
    RUN_KEYS,
    STEP_KEYS,
    ModalSection,
    OurKeys,
)
from modalrun.spec.validation import check, refuse_unknown
from modalrun.spec.yaml_source import YamlSource, read_yaml
from modalrun.util.nearest import nearest

__all__ = [
    "RUN_KEYS",
    "STEP_KEYS",
    "RunSpec",
    "Target",
    "load_spec",
]


@dataclass(frozen=True)
class RunSpec:
    """A checked run spec, with the command line's overrides.

    Attributes:
        pipeline: The pipeline's source below the source root, such as
            `my_project.pipelines.training`; "" where a deployment is given.
        stack: Name or id of the ZenML stack to compile for; None for the active one.
        target: Where the sandboxes run.
        source_root: The folder that the pipeline is imported from and that goes to the sandbox.
        run_configuration: What ZenML reads, as plain values: without what is said about sandboxes.
        source: The file, to point at the line of a value that turns out to be wrong.
        deployment: A compiled deployment instead of a pipeline: a file, or a snapshot's id or name.
        has_source_root: Whether the spec names its source root.
        places: What is said about the pipeline's sandboxes, by place.
        step_layers: What is said about single steps' sandboxes, by step and place.
        notes: What a user should know about how it was read.
        command_line: The overrides, to name the flag of a value that turns out to be wrong.
    """

    pipeline: str
    stack: str | None
    target: Target
    source_root: Path
    run_configuration: Mapping[str, Any]
    source: YamlSource = field(repr=False)
    deployment: str | None = None
    has_source_root: bool = False
    layers: Layers = field(default_factory=dict)
    step_layers: Mapping[str, Layers] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    command_line: CommandLineSource = field(
        default_factory=lambda: command_line(()), repr=False, kw_only=True
    )

    def error(
        self, key_path: Iterable[str | int], problem: str, hint: str | None = None
    ) -> UsageError:
        """An error that points at a key of the file, or at the flag that set it."""
        path = tuple(key_path)
        from_flag = any(p[: len(path)] == path or path[: len(p)] == p for p in self.flags)
        source = self.command_line if from_flag else self.source
        return UsageError(f"{source.where(path)}: {problem}", hint=hint)

    @property
    def flags(self) -> Mapping[tuple[str | int, ...], str]:
        """The keys that the command line sets, and its flags for them."""
        return self.command_line.flags

    def check_steps(self, known: Iterable[str], pipeline: str) -> None:
        """Check that every step that the spec names exists.

        Raises:
            UsageError: One doesn't.
        """
        known = list(known)
        named = [*(self.run_configuration.get("steps") or {}), *self.step_layers]
        mistakes = Mistakes()
        for name in dict.fromkeys(named):
            if name not in known:
                close = nearest(name, known)
                mistakes.found.append(
                    self.error(
                        ("steps", name),
                        f"the pipeline '{pipeline}' has no step '{name}'.",
                        f"Did you mean '{close}'?" if close else f"Its steps: {', '.join(known)}.",
                    )
                )
        mistakes.raise_all()


def written_target(path: Path | None) -> Target:
    """The target that a spec which can't be used has, or none at all; "modal" where it has none."""
    word = None
    if path is not None:
        with contextlib.suppress(UsageError):
            word = nearest(str(read_yaml(path).data.get("target")), ("modal", "local"))
    return "local" if word == "local" else "modal"


def load_spec(
    path: Path, *, target: Target | None = None, overrides: Sequence[Override] = ()
) -> RunSpec:
    """Read and check a run spec.

    Args:
        path: The YAML file, or a deployment file (`.json`) that stands for a spec naming it.
        target: Where to run, above what the file says.
        overrides: What the command line says, above the file.

    Raises:
        UsageError: The file, a key in it or an override is wrong; the message says where, of
            several mistakes for each in a line of its own.
    """
    if path.suffix == ".py":
        raise UsageError(
            f"{path} is Python, not a run spec.",
            hint="Write a YAML file that names its pipeline: 'pipeline: module.function'.",
        )
    if path.suffix == ".json":
        source = YamlSource(path, {"deployment": str(path.resolve())}, {})
    else:
        source = read_yaml(path)
    flags = command_line(overrides)
    mistakes = Mistakes()
    file_keys, flag_keys = _our_keys(source, mistakes), _our_keys(flags, mistakes)
    ours = OurKeys.model_validate(
        merged(file_keys.model_dump(exclude_unset=True), flag_keys.model_dump(exclude_unset=True))
    )
    if not mistakes.found:
        # A key that is wrong itself would be reported as missing, too.
        with mistakes.collecting():
            _check_what_runs(path, source, ours)
    compiled = ours.deployment is not None
    of_file = _sandboxes(source, file_keys, mistakes, compiled=compiled)
    of_flags = _sandboxes(flags, flag_keys, mistakes, compiled=compiled)
    source_root = source.path.parent
    with mistakes.collecting():
        source_root = _source_root(source, ours.source_root)
    mistakes.raise_all()
    return RunSpec(
        pipeline=ours.pipeline or "",
        stack=ours.stack,
        target=target or ours.target,
        source_root=source_root,
        run_configuration=merged(of_file.rest, of_flags.rest),
        source=source,
        deployment=ours.deployment,
        has_source_root=ours.source_root is not None,
        layers={Origin.SPEC_PIPELINE: of_file.pipeline, Origin.COMMAND_LINE: of_flags.pipeline},
        step_layers={
            name: {
                origin: said.steps[name]
                for origin, said in (
                    (Origin.SPEC_STEP, of_file),
                    (Origin.COMMAND_LINE_STEP, of_flags),
                )
                if name in said.steps
            }
            for name in {**of_file.steps, **of_flags.steps}
        },
        notes=(*of_file.notes, *of_flags.notes),
        command_line=flags,
    )


def _our_keys(source: YamlSource, mistakes: Mistakes) -> OurKeys:
    with mistakes.collecting():
        refuse_unknown(source, (), source.data, set(OurKeys.model_fields) | RUN_KEYS)
    given = {k: v for k, v in source.data.items() if k in OurKeys.model_fields and v is not None}
    modal = given.get("modal")
    if isinstance(modal, dict):
        # By itself, so that a misspelt key is compared with the keys of this section.
        del given["modal"]
        with mistakes.collecting():
            check(source, ("modal",), ModalSection, modal)
            given["modal"] = modal
    right: dict[str, Any] = {}
    for key, value in given.items():
        with mistakes.collecting():
            check(source, (), OurKeys, {key: value})
            right[key] = value
    for key, why in REFUSED.items():
        if source.data.get(key) is not None:
            mistakes.found.append(UsageError(f"{source.where((key,))}: {why}"))
    return OurKeys.model_validate(right)


def _check_what_runs(path: Path, source: YamlSource, ours: OurKeys) -> None:
    if ours.pipeline is None and ours.deployment is None:
        raise UsageError(
            f"{path}: the key 'pipeline' is missing.",
            hint="Name the pipeline by its source, as in 'pipeline: my_project.training.pipeline'.",
        )
    if ours.pipeline is not None and ours.deployment is not None:
        raise UsageError(
            f"{source.where(('deployment',))}: both 'pipeline' and 'deployment' are given.",
            hint="Keep 'pipeline' to compile it, or 'deployment' to use what is compiled.",
        )
    if ours.deployment is not None and ours.stack is not None:
        raise UsageError(
            f"{source.where(('stack',))}: a deployment is compiled for its stack; 'stack' can't"
            " change it.",
            hint="Remove 'stack', or compile the pipeline for another stack.",
        )
    if ours.pipeline is not None and (
        "." not in ours.pipeline
        or ours.pipeline.endswith(".py")
        or not all(p.isidentifier() for p in ours.pipeline.split("."))
    ):
        raise UsageError(
            f"{source.where(('pipeline',))}: '{ours.pipeline}' is not a source (module.function).",
            hint="As in 'pipeline: my_project.training.pipeline', without '.py' or slashes.",
        )


def _sandboxes(
    source: YamlSource, ours: OurKeys, mistakes: Mistakes, *, compiled: bool
) -> Sandboxes:
    configuration = {k: v for k, v in source.data.items() if k in RUN_KEYS and v is not None}
    said = read_sandboxes(
        source, ours.modal, configuration, mistakes, compiled=compiled, image=ours.image
    )
    zenml_keys.check_keys(source, said.rest, mistakes)
    if compiled:
        wrong: list[tuple[str, ...]] = [(key,) for key in said.rest if key not in COMPILED_KEYS]
        wrong += [("settings", key) for key in said.rest.get("settings", {})]
        wrong += [
            ("steps", name, key)
            for name, step in said.rest.get("steps", {}).items()
            for key in step
        ]
        mistakes.found += [
            UsageError(
                f"{source.where(one)}: '{'.'.join(one)}' is compiled into the deployment"
                " and can't be changed.",
                hint="Compile the pipeline again with it, or remove it.",
            )
            for one in wrong
        ]
    return said


def _source_root(source: YamlSource, given: str | None) -> Path:
    spec_folder = source.path.resolve().parent
    if given is not None:
        with contextlib.suppress(RuntimeError):
            # There is no such user; the path is then taken as it is, and not found.
            given = str(Path(given).expanduser())
        root = (spec_folder / given).resolve()
        if not root.is_dir():
            raise UsageError(
                f"{source.where(('source_root',))}: there is no folder {root}.",
                hint="'source_root' is read relative to the run spec.",
            )
        return root
    for folder in (spec_folder, *spec_folder.parents):
        if (folder / ".zen").is_dir():
            return folder
    return spec_folder
