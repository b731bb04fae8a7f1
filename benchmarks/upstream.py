"""Run ZenML's own Modal orchestrator on the local Modal server, as a baseline.

It requires a ZenML server, a remote artifact store and a container registry. The classes here
declare a folder as remote and the server as optional, and change nothing else. The sandboxes must
be able to import this module and the pipeline's (`place.py` sees to it).
"""

from __future__ import annotations

import json
from pathlib import Path

from zenml.artifact_stores.local_artifact_store import (
    LocalArtifactStore,
    LocalArtifactStoreConfig,
    LocalArtifactStoreFlavor,
)
from zenml.integrations.modal.flavors.modal_orchestrator_flavor import (
    ModalOrchestratorConfig,
    ModalOrchestratorFlavor,
)


class SharedFolderConfig(LocalArtifactStoreConfig):
    """A folder that every sandbox reaches under the same path."""

    @property
    def is_local(self) -> bool:
        """Return False: sandboxes of the local Modal server see the whole disk."""
        return False


class SharedFolder(LocalArtifactStore):
    """An artifact store in a folder."""

    @property
    def local_path(self) -> str | None:
        """Return None: no path belongs to one machine."""
        return None


class SharedFolderFlavor(LocalArtifactStoreFlavor):
    """The flavor of `SharedFolder`."""

    @property
    def name(self) -> str:
        """Return the flavor's name."""
        return "shared_folder"

    @property
    def config_class(self) -> type[SharedFolderConfig]:
        """Return the class of its configuration."""
        return SharedFolderConfig

    @property
    def implementation_class(self) -> type[SharedFolder]:
        """Return the class of its components."""
        return SharedFolder


class NearbyModalConfig(ModalOrchestratorConfig):
    """A configuration that allows ZenML's records in a SQLite file."""

    @property
    def is_remote(self) -> bool:
        """Return whether it needs a ZenML server."""
        return False


class NearbyModalFlavor(ModalOrchestratorFlavor):
    """ZenML's own Modal orchestrator, with `NearbyModalConfig`."""

    @property
    def name(self) -> str:
        """Return the flavor's name."""
        return "nearby_modal"

    @property
    def config_class(self) -> type[NearbyModalConfig]:
        """Return the class of its configuration."""
        return NearbyModalConfig


def set_up(folder: str) -> None:
    """Register the components and a stack of them."""
    from zenml.client import Client
    from zenml.enums import StackComponentType as Kind

    client = Client()
    for flavor, kind in (
        ("SharedFolderFlavor", Kind.ARTIFACT_STORE),
        ("NearbyModalFlavor", Kind.ORCHESTRATOR),
    ):
        client.create_flavor(source=f"upstream.{flavor}", component_type=kind)
    components = {
        Kind.ORCHESTRATOR: ("nearby_modal", {"synchronous": True}),
        Kind.ARTIFACT_STORE: ("shared_folder", {"path": folder}),
        Kind.CONTAINER_REGISTRY: ("default", {"uri": "registry.example/me"}),
        Kind.IMAGE_BUILDER: ("local", {}),
    }
    for kind, (flavor, configuration) in components.items():
        client.create_stack_component(
            name="upstream", flavor=flavor, component_type=kind, configuration=configuration
        )
    client.create_stack("upstream", components=dict.fromkeys(components, "upstream"))


def run(graph: str) -> None:
    """Run `graphs.graph` on the active stack with a file's parameters, and wait for its end."""
    from graphs import graph as pipeline
    from zenml.config import DockerSettings

    # ZenML unpacks downloaded code in `/app`, which sandboxes of the local Modal server share.
    docker = DockerSettings(
        skip_build=True,
        parent_image="registry.example/me/image:1",
        allow_download_from_artifact_store=False,
    )
    parents = json.loads(Path(graph).read_text(encoding="utf-8"))
    pipeline.with_options(settings={"docker": docker})(parents)
