"""Define the run manifest: everything that the driver of a `per_step` run needs. Pure.

It is written when the run is submitted and travels with the run sandbox as a file, so that the
driver can start the first steps before it has imported ZenML; and it is stored with the run in
ZenML, so that `modalrun resume` can start another driver, or continue a dynamic pipeline's run that
was paused. It holds no secret.
"""

from __future__ import annotations

import base64
import functools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modalrun.run.metadata import PREFIX
from modalrun.run.run_plan import RunPlan
from modalrun.run.sandbox_spec import SandboxSpec

MANIFEST_FILE = "/opt/modalrun-manifest/manifest.json"
"""Where the manifest is in the run sandbox: outside the code, which belongs to the user."""

KEY = f"{PREFIX}manifest"
"""The key of ZenML's metadata that the manifest is stored under, with the number of the piece."""

PIECE = 60_000
"""Characters in one piece: ZenML stores a value in a column of 65,535 bytes (`TEXT` of MySQL,
`zen_stores/schemas/run_metadata_schemas.py`, 0.98.0)."""


@dataclass(frozen=True)
class Source:
    """Hold the source tree that a run was submitted with.

    Attributes:
        root: The folder on the submitting machine.
        digest: The hash of its content.
        files: The hash of each file by its path (`source_changes.kept`); empty for very many.
        dockerignore: The file with patterns of what was left out, if it is not the usual one.
        include: What was included although a rule leaves it out.
    """

    root: Path
    digest: str
    files: Mapping[str, str] = field(default_factory=dict)
    dockerignore: str | None = None
    include: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunManifest:
    """Hold a whole run, of `per_step` mode or of a dynamic pipeline.

    Attributes:
        run_id: ZenML's run id.
        plan: Its sandboxes and steps; every image is built.
        failure_mode: The value of ZenML's `ExecutionMode`.
        source: The source tree.
        variables: The names of the environment variables that reach ZenML; their values travel as
            a Modal secret.
        cached: The steps that ZenML's cache supplied when the run was submitted; they don't run.
        docker: The pipeline's Docker settings, of a dynamic pipeline.
        layers: The sandbox settings that are written elsewhere than in the code, by place; of a
            dynamic pipeline, whose steps are not known when it is submitted.
    """

    run_id: str
    plan: RunPlan
    failure_mode: str
    source: Source
    variables: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    docker: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def sandbox_of(self, step: str) -> SandboxSpec | None:
        """Return the sandbox of a planned step; None for a step that is not planned."""
        return next((one.sandbox for one in self.plan.steps if one.name == step), None)

    def to_json(self) -> str:
        """Return the manifest as JSON; default values are left out."""
        return _adapter().dump_json(self, exclude_defaults=True).decode()

    @staticmethod
    def from_json(text: str) -> RunManifest:
        """Read a manifest from its JSON.

        Raises:
            ValueError: It is damaged.
        """
        try:
            return _adapter().validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise ValueError(f"the manifest can't be read: {place}: {first['msg']}") from error

    def to_metadata(self) -> dict[str, str]:
        """Return the manifest as ZenML's metadata, in as many pieces as it takes."""
        packed = base64.b85encode(zlib.compress(self.to_json().encode(), 9)).decode("ascii")
        pieces = [packed[start : start + PIECE] for start in range(0, len(packed), PIECE)]
        return {f"{KEY}_{number}": piece for number, piece in enumerate(pieces)}

    @staticmethod
    def from_metadata(metadata: Mapping[str, Any]) -> RunManifest | None:
        """Read the manifest in a run's metadata; None where there is none.

        Raises:
            ValueError: It is damaged.
        """
        pieces: list[str] = []
        while (piece := metadata.get(f"{KEY}_{len(pieces)}")) is not None:
            pieces.append(str(piece))
        if not pieces:
            return None
        try:
            text = zlib.decompress(base64.b85decode("".join(pieces))).decode()
        except zlib.error as error:
            raise ValueError(f"the manifest can't be read: {error}") from error
        return RunManifest.from_json(text)


@functools.cache
def _adapter() -> TypeAdapter[RunManifest]:
    return TypeAdapter(RunManifest)
