"""Run an earlier run's pipeline again, without what has succeeded in it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modalrun.errors import NotFoundError, UsageError
from modalrun.plan.stack import wrong_stack
from modalrun.run.metadata import Announced, RunMetadata
from modalrun.run.records import DeploymentRecord, RunRecord
from modalrun.run.rerun import Rerun
from modalrun.run.run_plan import Target
from modalrun.spec.fields import OUR_FLAVOR_KEYS, ZENML_FLAVOR_KEYS
from modalrun.spec.overrides import Override, command_line
from modalrun.spec.run_spec import RerunRequest, RunSpec, check_spec
from modalrun.spec.schema import COMPILED_KEYS, COMPONENTS, HOOK_KEYS, RUN_KEYS, STEP_KEYS
from modalrun.spec.spec_record import SpecRecord
from modalrun.spec.yaml_nodes import KeyPath
from modalrun.spec.yaml_source import YamlSource
from modalrun.submit import prepare
from modalrun.submit.source.imports import check_imports
from modalrun.submit.source.selection import credential_notes, select
from modalrun.submit.source.staging import new_files_note, stage_again
from modalrun.util.text import shell_word
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway

_SYNCHRONOUS = ("settings", "orchestrator", "synchronous")


def spec_of_rerun(
    run_id: str,
    overrides: Sequence[Override] = (),
    *,
    begin: Sequence[str] = (),
    target: Target | None = None,
    new_code: bool = False,
    zenml: ZenMLGateway = ZENML,
) -> RunSpec:
    """Return the spec that a rerun is submitted with. Call it inside `zenml_session`.

    Without new code or parameters that is the run's deployment; else the pipeline is compiled anew,
    from the run spec that was stored with it.

    Args:
        overrides: What the command line sets.
        begin: The steps to begin with, although they have succeeded.
        target: Where to run; None for the earlier run's target.
        new_code: Whether to take the source tree as it is now.

    Raises:
        NotFoundError: There is no such run, or its deployment was deleted.
        UsageError: The run is not over, or what a rerun needs was not recorded; or an override is
            wrong.
        ModalrunError: ZenML can't be reached.
    """
    run, place = _read_finished(run_id, zenml)
    deployment = zenml.deployment_of(run.id)
    if deployment.stack is None:
        raise NotFoundError(f"The stack of the run {run.id} was deleted.")
    files = None
    if not new_code:
        files = zenml.read_source(run.id)
        if files is None:
            hint = "'--new-code' takes the files that are here, and compiles the pipeline anew."
            if SpecRecord.of(deployment.environment) is None:
                hint = _how_to_submit(deployment, place.target)
            raise UsageError(
                f"ZenML has no record of the files that the run {run.id} was submitted with.",
                hint=hint,
            )
    if command_line(overrides).flag(_SYNCHRONOUS) is None:
        # Whoever submitted the run without waiting may wait for this one.
        overrides = [*overrides, Override("--sync", _SYNCHRONOUS, True)]
    given = command_line(overrides)
    compiles = new_code or any(
        _is_compiled(override.path, override.value) for override in overrides
    )
    # Paths in it are relative to the current folder.
    file = Path(f"run {run.id}")
    if compiles:
        record = _stored_spec(run.id, deployment, place.target)
        flags = record.command_line(given)
        source = YamlSource(file, dict(record.file), {}, literals=record.texts)
        spec = check_spec(source, flags, target=target)
        spec = replace(spec, stack=spec.stack or deployment.stack)
    else:
        spec = check_spec(YamlSource(file, {"deployment": deployment.id}, {}), given, target=target)
    return replace(
        spec,
        target=spec.target if spec.has_target else place.target,
        rerun=RerunRequest(
            run.id,
            tuple(begin),
            files,
            compiles,
            given,
        ),
    )


def plan_rerun(spec: RunSpec) -> tuple[Rerun, tuple[str, ...]]:
    """Say what a rerun would take and run, as its submission does; nothing is created.

    Returns:
        What it takes and runs, and what to say of its files and the plan.

    Raises:
        ModalrunError: As for `submission.submit`, as far as Modal is not needed.
    """
    assert spec.rerun is not None
    compiled = prepare.load_deployment(spec, looks=True)
    assert compiled.rerun is not None
    priced = prepare.plan_deployment(
        compiled.deployment,
        compiled.stack_description,
        spec,
        skipped=compiled.rerun.skipped,
    )
    if priced.problems:
        raise wrong_stack(priced.stack, priced.problems)
    told = [f"note: {note}" for note in priced.notes]
    if spec.rerun.source is None:
        tree = select(priced.source)
        tree.check()
        check_imports(priced.source, tree)
        about_files = tree.notes
    else:
        with tempfile.TemporaryDirectory(prefix="modalrun-source-") as folder:
            copy = Path(folder) / "source"
            _, new, tree = stage_again(spec.rerun.source, priced.source, copy, rerun=True)
            if new:
                told.append(new_files_note(new))
        about_files = credential_notes(tree.files)
    told += [f"note: {note}" for note in about_files]
    return compiled.rerun, (*told, tree.described())


def _read_finished(run_id: str, zenml: ZenMLGateway) -> tuple[RunRecord, RunMetadata | Announced]:
    """Return ZenML's record of a run that is over, and where it was."""
    run = zenml.read_run(run_id)
    if not run.finished:
        raise UsageError(
            f"The run {run.id} is not over: it is '{run.status}'.",
            hint=f"'modalrun stop {run.id}' ends it. 'modalrun resume {run.id}' continues it if it"
            " is paused or has lost its driver; 'modalrun status' says what it needs.",
        )
    if run.place is None:
        why, hint = "modalrun did not start it", None
        if run.parent is not None:
            why = "a child pipeline runs again with its parent"
            hint = f"That is 'modalrun rerun {run.parent}'."
        raise UsageError(f"The run {run.id} can't be rerun: {why}.", hint=hint)
    return run, run.place


def _stored_spec(run_id: str, deployment: DeploymentRecord, target: Target) -> SpecRecord:
    """Return the run spec that is stored with the deployment of a run."""
    record = SpecRecord.of(deployment.environment)
    if record is None:
        # A script has none, and a very long one is not stored.
        raise UsageError(
            f"The pipeline of the run {run_id} can't be compiled anew: no run spec is stored"
            " with its deployment.",
            hint=_how_to_submit(deployment, target),
        )
    return record


def _how_to_submit(deployment: DeploymentRecord, target: Target) -> str:
    submit = f"modalrun submit {shell_word(deployment.pipeline or 'FILE.py:PIPELINE')}"
    submit += "" if target == "modal" else f" --target {target}"
    return (
        "Run its script, or submit its run spec, with what is to change; or"
        f" '{submit}', with --param for other parameters."
    )


def _is_compiled(path: KeyPath, value: Any) -> bool:
    """Return whether a key of a run spec is compiled into the deployment."""
    if path[0] == "steps":
        if len(path) < 3 or path[2] != "settings":
            return len(path) < 3 or path[2] in STEP_KEYS
        path = path[2:]
    if path[0] == "settings":
        sections: Iterable[Any] = path[1:2] or (value if isinstance(value, Mapping) else ())
        return any(map(_is_of_component, map(str, sections)))
    return path[0] in {*RUN_KEYS, *HOOK_KEYS, "stack"} - COMPILED_KEYS


def _is_of_component(section: str) -> bool:
    """Return whether a section of settings is another component's, and no sandbox's."""
    ours = section in {*OUR_FLAVOR_KEYS, *ZENML_FLAVOR_KEYS}
    return not ours and re.split("[:.]", section)[0] in COMPONENTS | {"deployment"}
