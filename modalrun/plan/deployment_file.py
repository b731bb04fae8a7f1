"""Write and read deployment files: compiled deployments that are planned without ZenML.

A file is one JSON object: the format's name and version, the versions it was made with, a checksum,
and the content. The content holds ZenML's snapshot as it is, and beside it what the snapshot lacks:
the origin of each setting, the component's defaults, and a description of the stack.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modalrun import __version__
from modalrun.errors import UsageError
from modalrun.plan.deployment import Deployment, read_snapshot
from modalrun.plan.stack import Component, StackDescription
from modalrun.spec.precedence import Origin, SettingsLayer

FORMAT = "modalrun-deployment"
VERSION = 1
_CONTENT = b' "content": '
"""The checksum is that of everything after this."""

AGAIN = "Compile the pipeline again with 'modalrun compile'."


@dataclass(frozen=True)
class DeploymentFile:
    """Hold a compiled deployment.

    Attributes:
        deployment, snapshot: The pipeline in modalrun's form, and in ZenML's, as plain values.
        zenml_version, python_version: The versions that compiled it, "0.98.0" and "3.11".
        source_root: The folder that the pipeline was imported from, relative to the file.
    """

    deployment: Deployment
    snapshot: Mapping[str, Any]
    stack: StackDescription
    zenml_version: str
    python_version: str
    source_root: str
    source_code: str | None = None


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
        "source_code": file.source_code,
    }
    text = json.dumps(content, separators=(",", ":"))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "modalrun": __version__,
        "zenml": file.zenml_version,
        "python": file.python_version,
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
        content = envelope["content"]
        labels = {
            owner: {name: f"deployment file: {label}" for name, label in of_owner.items()}
            for owner, of_owner in content["labels"].items()
        }
        deployment = read_snapshot(content["snapshot"], labels=labels)
        component, docker, stack = content["component"], content["docker"], content["stack"]
        components = tuple(Component(**values) for values in stack["components"])
        component_labels = dict.fromkeys(component, "deployment file: component")
        component_layer = SettingsLayer(component, labels=component_labels)
        return DeploymentFile(
            deployment=replace(
                deployment,
                layers={**deployment.layers, Origin.COMPONENT: component_layer},
                notes=tuple(content["notes"]),
                docker=docker[""],
                steps=tuple(replace(s, docker=docker.get(s.name)) for s in deployment.steps),
            ),
            snapshot=content["snapshot"],
            stack=StackDescription(**{**stack, "components": components}),
            zenml_version=envelope["zenml"],
            python_version=envelope["python"],
            source_root=content["source_root"],
            source_code=content["source_code"],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{path} is not a whole deployment file: {type(error).__name__}: {error}.", hint=AGAIN
        ) from error


def _envelope(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        envelope = json.loads(data)
    except FileNotFoundError as error:
        raise UsageError(f"There is no deployment file {path}.", hint="Check the path.") from error
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        reason = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(
            f"{path} is not a deployment file: it is not JSON, or it is cut off{reason}.",
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
