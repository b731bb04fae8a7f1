"""Prepare a submission to a ZenML server without importing ZenML, where it is a usual one.

The records are those that ZenML's own client leaves. Whatever is unusual is left to the client,
also each refusal of the server: its errors stay the same.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalrun.errors import UsageError
from modalrun.plan import conditions as usual
from modalrun.plan import deployment_file
from modalrun.plan.conditions import Conditions
from modalrun.plan.deployment import Deployment, with_run_options, with_spec
from modalrun.plan.stack import StackDescription
from modalrun.run.records import CreatedRun, Placeholder
from modalrun.run.source import Source
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import prepare, reuse
from modalrun.submit.source.selection import select
from modalrun.submit.source.staging import stage
from modalrun.util import timeline
from modalrun.util.background import in_background
from modalrun.zenml_api import config_files
from modalrun.zenml_api.rest.session import connect
from modalrun.zenml_api.rest.settings import Unusual
from modalrun.zenml_api.rest.submission import REFUSALS, Server

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling.compile import Compiled

logger = logging.getLogger(__name__)

RECORD_GRACE_SECONDS = 3.0
"""How long a signal waits for the record of a run that ZenML is creating."""

NOT_COMPILED = (
    "Nothing has changed since the pipeline was compiled; '--fresh' compiles it all the same."
)


@dataclass(frozen=True)
class LeanDeployment:
    """A compiled pipeline in plain values; it stands for `Compiled`.

    Attributes:
        deployment, stack_description, docker_digest, credentials, rerun: As there.
        conditions: What it was compiled against.
        snapshot: The pipeline in ZenML's form.
        stored_id: The id of the snapshot if ZenML has it stored.
        tree: The digest that the source tree must have, if it was compiled from that.
    """

    deployment: Deployment
    stack_description: StackDescription
    conditions: Conditions
    snapshot: Mapping[str, Any]
    stored_id: str | None = None
    source_code: str | None = None
    tree: str | None = None
    credentials: None = None
    rerun: None = None

    @property
    def docker_digest(self) -> str:
        """The digest of the pipeline's Docker settings."""
        return self.conditions.docker_digest


@dataclass(frozen=True)
class LeanSubmission:
    """A submission that needs no ZenML here."""

    compiled: LeanDeployment
    server: Server

    def create_run(self, source: Source | None, placeholder: Placeholder) -> CreatedRun:
        """Create the record in ZenML.

        Args:
            placeholder: Gets the run's id as soon as it exists.

        Raises:
            UsageError: A file has changed since the source tree was compared.
            Exception: One of `REFUSALS`: there is no record.
        """
        compiled = self.compiled
        if compiled.tree is not None and (source is None or source.digest != compiled.tree):
            raise UsageError(
                "A file of the source tree changed while the run was submitted.",
                effect="Nothing was created.",
                hint="Submit it again.",
            )
        snapshot_id = compiled.stored_id or self.server.store(
            compiled.snapshot, compiled.deployment.pipeline, compiled.source_code
        )
        components = compiled.stack_description.components
        return self.server.create_run(
            snapshot_id,
            compiled.snapshot,
            placeholder,
            local_artifacts=any(c.kind == "artifact_store" and c.is_local for c in components),
        )


def find(spec: RunSpec, key: str, configuration: Path) -> LeanSubmission | None:
    """Return a submission that needs no ZenML; None if there is none.

    Args:
        key: Its key, by `fingerprint`.

    Raises:
        ModalrunError: ZenML's server can't be reached, or a setting is wrong.
    """
    if spec.rerun is not None or not config_files.has_server():
        return None
    remembered = reuse.recall(key, spec)
    path = prepare.deployment_path(spec)
    try:
        if remembered is not None:
            return _remembered(spec, remembered, configuration)
        if path is not None:
            return _of_file(spec, path, configuration)
    except REFUSALS as refusal:
        logger.info("ZenML's own client submits the run: %s", refusal)
    return None


def create_run(
    spec: RunSpec,
    compiled: Compiled,
    lean: LeanSubmission | None,
    source: Source | None,
    placeholder: Placeholder,
) -> CreatedRun:
    """Create the record of a run in ZenML, by requests where that is possible.

    Args:
        lean: The submission that needs no ZenML, if it is one.
        placeholder: Gets the run's id as soon as it exists.

    Raises:
        ModalrunError: As for `records.runs.create_run`.
        KeyboardInterrupt, Interrupted: A signal came; the run may exist, as `placeholder` says.
    """
    if lean is not None:
        with contextlib.suppress(*REFUSALS):
            return unless_interrupted(lambda: lean.create_run(source, placeholder), placeholder)
        # ZenML's own client says why, or can do it.
        compiled = prepare.load_deployment(spec)
    with timeline.phase("import ZenML's records"):
        from modalrun.zenml_api.records import runs
    return unless_interrupted(lambda: runs.create_run(compiled, placeholder), placeholder)


def unless_interrupted(create: Callable[[], CreatedRun], placeholder: Placeholder) -> CreatedRun:
    """Return the run that a call creates; a signal waits for it for seconds at most.

    Raises:
        KeyboardInterrupt, Interrupted: A signal came; the run may exist, as `placeholder` says.
    """

    def call() -> CreatedRun:
        placeholder.unanswered = True
        try:
            return create()
        finally:
            placeholder.unanswered = False

    return in_background(call, grace=RECORD_GRACE_SECONDS)


def _remembered(spec: RunSpec, found: reuse.Remembered, configuration: Path) -> LeanSubmission:
    server = Server(connect(configuration), found.description.id)
    if found.named is not None and spec.deployment is not None:
        server.require_snapshot(spec.deployment, found.named)
    snapshot = server.snapshot(found.snapshot)
    deployment = found.deployment(snapshot)
    tree = found.tree if spec.own_code or _gather_here(deployment) else None
    compiled = LeanDeployment(
        # The submission of the same files has checked what they import.
        deployment if tree is None else replace(deployment, modules=()),
        found.description,
        found.conditions,
        snapshot,
        found.snapshot,
        tree=tree,
    )
    return _usual(spec, compiled, server)


def _of_file(spec: RunSpec, path: Path, configuration: Path) -> LeanSubmission:
    """Read a deployment file as `snapshots.from_file` does."""
    file = deployment_file.read(path)
    if file.conditions is None:
        raise Unusual("the file was not compiled for a ZenML server")
    deployment, spec = prepare.of_file(file, spec)
    layers = [spec.layers, *spec.step_layers.values()]
    if _gather_here(deployment) or any(
        layer.docker for by_origin in layers for layer in by_origin.values()
    ):
        raise Unusual("the Docker settings name packages of this machine")
    server = Server(connect(configuration), file.stack.id)
    snapshot = with_run_options(file.snapshot, spec.run_configuration)
    if spec.has_settings:
        key = f"orchestrator:{server.orchestrator['name']}"
        snapshot = with_spec(snapshot, deployment, key, spec)
    stack = replace(file.stack, server=server.session.settings.url)
    folders = [component.local_path for component in stack.components if component.local_path]
    if not all(folder.startswith(config_files.local_stores()) for folder in folders):
        raise Unusual("a component keeps its files on another machine")
    compiled = LeanDeployment(
        deployment, stack, file.conditions, snapshot, source_code=file.source_code
    )
    return _usual(spec, compiled, server)


def _gather_here(deployment: Deployment) -> bool:
    dockers = [deployment.docker, *(step.docker for step in deployment.steps if step.docker)]
    return any(map(usual.gathers_here, dockers))


def _usual(spec: RunSpec, compiled: LeanDeployment, server: Server) -> LeanSubmission:
    """Return the submission of a pipeline.

    Raises:
        Unusual: It needs ZenML's own client.
    """
    priced = prepare.plan_deployment(compiled.deployment, compiled.stack_description, spec)
    reason = usual.unusual(
        priced.plan,
        compiled.deployment,
        compiled.snapshot,
        description=compiled.stack_description,
        conditions=compiled.conditions,
        now=server.state,
        zenml=version("zenml"),
    )
    if reason is None and compiled.tree is not None:
        with tempfile.TemporaryDirectory(prefix="modalrun-source-") as folder:
            if stage(select(priced.source), Path(folder) / "source").digest != compiled.tree:
                reason = "the source tree has changed"
    if reason is not None:
        raise Unusual(reason)
    keys = compiled.conditions.cache_keys
    server.require_uncached(keys[name] for name in usual.cacheable(compiled.deployment))
    return LeanSubmission(compiled, server)
