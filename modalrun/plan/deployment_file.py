"""Write and read deployment files: compiled deployments that are planned without ZenML.

A file is one JSON object: the format's name and version, the versions it was made with, a checksum,
and the content. The content holds ZenML's snapshot as it is, and beside it what the snapshot lacks:
the origin of each setting, the component's defaults, a description of the stack, and what it was
compiled against.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic_core import from_json

from modalrun import __version__
from modalrun.errors import UsageError
from modalrun.plan.conditions import Conditions
from modalrun.plan.deployment import Deployment, read_snapshot
from modalrun.plan.snapshot_schema import Docker, check, check_settings
from modalrun.plan.stack import StackDescription
from modalrun.run.run_plan import Target
from modalrun.spec.precedence import Origin, SettingsLayer
from modalrun.util.nearest import path_hint
from modalrun.util.regular_files import open_regular

FORMAT = "modalrun-deployment"
VERSION = 1
MAX_BYTES = 50_000_000
"""A larger file is something else, or has no end."""

_CONTENT = b' "content": '
"""The checksum is that of everything after this."""

AGAIN = "Compile the pipeline again with 'modalrun compile'."


@dataclass(frozen=True)
class DeploymentFile:
    """Hold a compiled deployment.

    Attributes:
        deployment, snapshot: The pipeline in modalrun's form, and in ZenML's, as plain values.
        zenml_version: The version that compiled it, "0.98.0".
        source_root: The folder that the pipeline was imported from, relative to the file.
        target: Where it is run unless a run spec or an option names a target.
        conditions: What it was compiled against on a ZenML server.
    """

    deployment: Deployment
    snapshot: Mapping[str, Any]
    stack: StackDescription
    zenml_version: str
    source_root: str
    target: Target
    source_code: str | None = None
    conditions: Conditions | None = None


def write(path: Path, file: DeploymentFile) -> None:
    """Write a deployment file, readable by its owner alone: it holds environment variables.

    Raises:
        UsageError: It can't be written.
    """
    deployment = file.deployment
    owners = {"": deployment.layers, **{step.name: step.layers for step in deployment.steps}}
    content = {
        "snapshot": file.snapshot,
        "stack": asdict(file.stack),
        "labels": {
            owner: layer.labels
            for owner, layers in owners.items()
            for origin, layer in layers.items()
            if origin is not Origin.COMPONENT and layer.labels
        },
        # With the gathered packages, which need ZenML and the stack.
        "docker": {
            "": deployment.docker,
            **{step.name: step.docker for step in deployment.steps if step.docker is not None},
        },
        "component": deployment.layers.get(Origin.COMPONENT, SettingsLayer()).settings,
        "notes": deployment.notes,
        "source_root": file.source_root,
        "target": file.target,
        "source_code": file.source_code,
        "conditions": asdict(file.conditions) if file.conditions else None,
    }
    text = json.dumps(content, separators=(",", ":"))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "modalrun": __version__,
        "zenml": file.zenml_version,
        "checksum": _checksum(text.encode()),
    }
    whole = f"{json.dumps(header, indent=1)[:-2]},\n{_CONTENT.decode()}{text}\n}}\n"
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as temporary:
            temporary.write(whole)
        Path(temporary.name).replace(path)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.") from error


def read(path: Path) -> DeploymentFile:
    """Read a deployment file. Imports neither ZenML nor Modal.

    Raises:
        UsageError: There is no such file, it is damaged, or of another format or version.
    """
    envelope = _envelope(path)
    try:
        file = check(_Envelope, envelope)
        content = file.content
        labels = {
            owner: {name: f"deployment file: {label}" for name, label in of_owner.items()}
            for owner, of_owner in content.labels.items()
        }
        deployment = read_snapshot(content.snapshot, labels=labels)
        component = check_settings(content.component)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", hint=AGAIN) from error
    component_labels = dict.fromkeys(component, "deployment file: component")
    component_layer = SettingsLayer(component, labels=component_labels)
    # The checked values have defaults filled in.
    docker = envelope["content"]["docker"]
    return DeploymentFile(
        deployment=replace(
            deployment,
            layers={**deployment.layers, Origin.COMPONENT: component_layer},
            notes=tuple(content.notes),
            docker=docker[""],
            steps=tuple(replace(s, docker=docker.get(s.name)) for s in deployment.steps),
        ),
        snapshot=content.snapshot,
        stack=content.stack,
        zenml_version=file.zenml,
        source_root=content.source_root,
        target=content.target,
        source_code=content.source_code,
        conditions=content.conditions,
    )


class _Content(BaseModel):
    """The content of a file, with the names of `write`."""

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True)

    snapshot: dict[str, Any]
    stack: StackDescription
    labels: dict[str, dict[str, str]]
    docker: dict[str, Docker | None]
    component: dict[str, Any]
    notes: list[str]
    source_root: str
    target: Target
    source_code: str | None
    conditions: Conditions | None = None

    @field_validator("docker")
    @classmethod
    def _has_the_pipelines(cls, value: dict[str, Docker | None]) -> dict[str, Docker | None]:
        if value.get("") is None:
            raise ValueError("the Docker settings of the pipeline are missing")
        return value


class _Envelope(BaseModel):
    """The whole file."""

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True)

    zenml: str
    content: _Content


def _envelope(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UsageError(f"{path} has more than {MAX_BYTES:,} bytes: it is no deployment file.")
        # Unlike `json`, it refuses half a surrogate pair, and has a bound on levels.
        envelope = from_json(data)
    except FileNotFoundError as error:
        raise UsageError(f"There is no deployment file {path}.", hint=path_hint(path)) from error
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UsageError(
            f"{path} is not a deployment file: it is not JSON, or it is cut off ({error}).",
            hint=AGAIN,
        ) from error
    if not isinstance(envelope, dict) or envelope.get("format") != FORMAT:
        raise UsageError(f"{path} is JSON, but not a deployment file.", hint=AGAIN)
    if envelope.get("version") != VERSION:
        raise UsageError(
            f"{path} is a deployment file of version {envelope.get('version')}, written by modalrun"
            f" {envelope.get('modalrun')}; this modalrun ({__version__}) reads version {VERSION}.",
            hint=AGAIN,
        )
    content = data.partition(_CONTENT)[2].rstrip()[:-1].rstrip()
    if _checksum(content) != envelope.get("checksum"):
        raise UsageError(
            f"{path} is damaged or was changed by hand: its content does not match its checksum.",
            hint=f"Settings are overridden in the run spec or on the command line. {AGAIN}",
        )
    return envelope


def _checksum(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
