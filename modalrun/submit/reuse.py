"""Remember what a submission has stored in ZenML, so that the same one again need not compile.

A stored snapshot is used again only if compiling now would give the same: the same spec, overrides,
environment, configuration, packages and versions (`fingerprint`), the same source tree, the same
other files that the code has read, the same day, and the same stack in ZenML. Code that asks for
the time, random numbers, the network or other programs while it is imported is compiled each time
(`util.inputs`).
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from modalrun.plan.conditions import Conditions
from modalrun.plan.deployment import CompiledStep, Deployment, orchestrator_settings, read_snapshot
from modalrun.plan.image_layers import GATHERED
from modalrun.plan.stack import StackDescription
from modalrun.run.records import CreatedRun
from modalrun.run.source import Source
from modalrun.run.values import adapter
from modalrun.spec.precedence import Layers, Origin, SettingsLayer
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import plan_cache
from modalrun.util.inputs import changed_since, unchanged

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling.compile import Compiled

NAME = "compiled"
"""What the entry of `plan_cache` has it under."""

_PASSWORD = re.compile(r"://[^/\s]*@")


@dataclass(frozen=True)
class Remembered:
    """Hold what a submission needs beside the snapshot that ZenML has stored. No values of secrets.

    Attributes:
        snapshot: The id of the snapshot that was run.
        named: The id of the one that the spec names, if it names one.
        tree: The digest of the source tree.
        inputs: The hashes of other files and folders that the code has read.
        day: The day on which it was compiled: code may ask for it.
        conditions, description: What it was compiled against.
        layers: The settings of the pipeline ("") and of the steps, by the rank of their origin.
        gathered: The packages that were gathered for the Docker settings of the same.
        notes: Remarks for the user.
    """

    snapshot: str
    named: str | None
    tree: str
    inputs: dict[str, str]
    day: str
    conditions: Conditions
    description: StackDescription
    layers: dict[str, dict[int, SettingsLayer]]
    gathered: dict[str, dict[str, Any]]
    notes: tuple[str, ...]

    def deployment(self, snapshot: Mapping[str, Any]) -> Deployment:
        """Return the deployment, as it was compiled, from its stored snapshot."""
        found = read_snapshot(snapshot, ignored_settings=orchestrator_settings(snapshot))

        def layers(owner: str) -> Layers:
            return {one: layer for one in Origin if (layer := self.layers[owner].get(one))}

        def docker(owner: str, own: Mapping[str, Any]) -> dict[str, Any]:
            return {**own, **({GATHERED: self.gathered[owner]} if owner in self.gathered else {})}

        steps = tuple(
            replace(
                step,
                layers=layers(step.name),
                docker=None if step.docker is None else docker(step.name, step.docker),
            )
            for step in found.steps
        )
        return replace(
            found, layers=layers(""), docker=docker("", found.docker), notes=self.notes, steps=steps
        )


def recall(key: str, spec: RunSpec) -> Remembered | None:
    """Return what is remembered under a key, if as far as this machine knows it still holds."""
    try:
        found = adapter(Remembered).validate_python(plan_cache.load(key).get(NAME))
    except ValidationError:
        return None
    if spec.own_code and not (found.day == _today() and unchanged(found.inputs)):
        return None
    return found


def remember(
    key: str, spec: RunSpec, compiled: Compiled, run: CreatedRun, source: Source, *, began: float
) -> threading.Thread:
    """Remember a submission that was accepted, from a background thread.

    Nothing is remembered of one that a later one may have to differ from.

    Args:
        began: When it began; what has changed since may not be what was compiled.

    Returns:
        The thread. Nothing else waits for it.
    """

    def work() -> None:
        # It costs the next submission a few seconds.
        with contextlib.suppress(Exception):
            if (found := _remembered(spec, compiled, run, source, began)) is not None:
                plan_cache.store(key, {NAME: adapter(Remembered).dump_python(found, mode="json")})

    thread = threading.Thread(target=work, name="remembering", daemon=True)
    thread.start()
    return thread


def _remembered(
    spec: RunSpec, compiled: Compiled, run: CreatedRun, source: Source, began: float
) -> Remembered | None:
    from modalrun.zenml_api.compiling.conditions import conditions_of

    deployment, inputs = compiled.deployment, compiled.inputs
    owners: dict[str, Deployment | CompiledStep] = {"": deployment}
    owners |= {step.name: step for step in deployment.steps}
    gathered = {
        name: owner.docker[GATHERED]
        for name, owner in owners.items()
        if owner.docker and GATHERED in owner.docker
    }
    if (
        run.snapshot_id is None
        or spec.rerun is not None
        or compiled.stack_description.server is None
        or (inputs is not None and inputs.doubts)
        or _PASSWORD.search(repr(gathered))
        # Of more files than that only the total is known.
        or not source.files
        or any(changed_since(spec.source_root / path, began) for path in source.files)
    ):
        return None
    return Remembered(
        snapshot=run.snapshot_id,
        named=compiled.named_id,
        tree=source.digest,
        inputs=inputs.paths if inputs is not None else {},
        day=_today(),
        conditions=conditions_of(compiled, spec.target),
        description=compiled.stack_description,
        layers={
            name: {int(origin): replace(layer, docker={}) for origin, layer in owner.layers.items()}
            for name, owner in owners.items()
        },
        gathered=gathered,
        notes=deployment.notes,
    )


def _today() -> str:
    return date.today().isoformat()
