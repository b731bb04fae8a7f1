"""The fields of `ModalOrchestratorSettings` as plain pydantic, importable without ZenML.

`modalrun.settings` puts them on ZenML's settings base class; the plan reads them back from a
compiled deployment. Both see the same names, types and bounds because they are written here once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

MAX_TIMEOUT_SECONDS = 86_400
"""Modal ends every sandbox after 24 hours (modal.com/docs/guide/sandboxes, read 2026-10-09)."""

MODAL_NAME = re.compile(r"^[A-Za-z0-9\-_.]{1,64}$")
"""What Modal takes as the name of an app or environment (`modal/_utils/name_utils.py`, 1.6.4)."""

Name = Annotated[StrictStr, Field(min_length=1)]
Cores = Annotated[float, Field(gt=0)]


_IMAGE_FORMS = "write either {source: registry} or {name: <a Modal image>}"


class ImageSetting(BaseModel):
    """The setting `image`: an image other than the one made from the Docker settings.

    Attributes:
        source: "registry" for the image that ZenML builds, with Docker, and pushes to the
            container registry of the stack.
        name: An image that was published in Modal under this name ("my-image", "my-image:v2",
            "environment/my-image"), or the id of one ("im-...").
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["registry"] | None = None
    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9\-_./:]+$")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: Any) -> Any:
        if not isinstance(value, Mapping | ImageSetting):
            raise ValueError(_IMAGE_FORMS)
        return value

    @model_validator(mode="after")
    def _one_of_them(self) -> ImageSetting:
        if (self.source is None) == (self.name is None):
            raise ValueError(_IMAGE_FORMS)
        return self


class SettingFields(BaseModel):
    """What a user can set under `settings: {orchestrator: ...}`, on a pipeline or a step.

    Every field is None until it is set: ZenML stores settings with their defaults filled in, so
    a default here could not be told from a value that the user wrote.

    Attributes:
        gpu: A GPU type such as "A100", or an ordered list of types to fall back through. How many
            is `ResourceSettings.gpu_count`.
        region: A Modal region such as "us-east", or several.
        cloud: A cloud provider: "aws", "gcp", "oci" or "auto".
        modal_environment: The Modal environment that the app lives in.
        workspace: The Modal workspace that the token is expected to belong to.
        app_name: The name of the Modal app; `zenml-pipeline-<pipeline>` when not set.
        mode: "pipeline" (the default) runs all steps in one sandbox; "per_step" runs a sandbox
            per step.
        max_parallelism: How many steps may run at the same time.
        timeout: Seconds until the run sandbox is ended, 1 to 86400 (the default).
        synchronous: Whether `submit` waits for the end of the run (the default).
        secrets: Names of Modal secrets whose keys become environment variables.
        volumes: Modal volumes to mount: name -> absolute path.
        image: Where the image of the sandbox comes from.
        cpu_limit: A hard limit on CPU cores, above the requested `cpu_count`.
        memory_limit: A hard limit on memory, such as "32GB".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu: Name | list[Name] | None = None
    region: Name | list[Name] | None = None
    cloud: Name | None = None
    modal_environment: Name | None = None
    workspace: Name | None = None
    app_name: Name | None = None
    mode: Literal["pipeline", "per_step"] | None = None
    max_parallelism: Annotated[StrictInt, Field(ge=1)] | None = None
    timeout: Annotated[StrictInt, Field(ge=1, le=MAX_TIMEOUT_SECONDS)] | None = None
    synchronous: StrictBool | None = None
    secrets: list[Name] | None = None
    volumes: dict[Name, Name] | None = None
    image: ImageSetting | None = None
    cpu_limit: Cores | None = None
    memory_limit: Name | None = None

    @field_validator("app_name", "modal_environment")
    @classmethod
    def _fits_modal(cls, value: str | None) -> str | None:
        if value is not None and not MODAL_NAME.match(value):
            raise ValueError(
                "Modal takes 1 to 64 letters, digits, dashes, underscores and dots as a name"
            )
        return value

    @field_validator("gpu", "region")
    @classmethod
    def _not_an_empty_list(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("an empty list; leave the setting out instead")
        return value


FIELD_NAMES = frozenset(SettingFields.model_fields)

_NOT_YET: dict[str, str] = {
    "max_parallelism": "the steps of a run go one after the other",
    "secrets": "Modal secrets can't be attached by name",
    "volumes": "Modal volumes can't be mounted",
    "workspace": "the workspace is the one that the Modal token belongs to",
    "cpu_limit": "only requests are sent to Modal",
    "memory_limit": "only requests are sent to Modal",
}


def not_supported(settings: Mapping[str, object]) -> tuple[str, str] | None:
    """The first setting that is known but not acted on yet, and what holds instead.

    Such a setting is refused: one that is silently ignored would be a lie.
    """
    if settings.get("mode") == "per_step":
        return "mode", "'per_step' is not there yet; 'pipeline' runs all steps in one sandbox"
    if settings.get("synchronous") is False:
        return "synchronous", "submit always waits for the end of the run"
    for name, instead in _NOT_YET.items():
        if settings.get(name) is not None:
            return name, instead
    return None
