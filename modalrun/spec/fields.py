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

from modalrun.run.run_plan import Mode, Prewarm

MAX_TIMEOUT_SECONDS = 86_400
"""Modal ends every sandbox after 24 hours (modal.com/docs/guide/sandboxes, read 2026-10-09)."""

MODAL_NAME = re.compile(r"[A-Za-z0-9\-_.]{1,64}")
"""What Modal takes as the name of an app or environment (`modal/_utils/name_utils.py`, 1.6.4)."""

MEMORY = re.compile(r"([0-9]+)([KMGTP]i?B|B)")
"""An amount of memory as ZenML writes it (`zenml/config/resource_settings.py`, 0.98.0)."""

Name = Annotated[StrictStr, Field(min_length=1)]
Cores = Annotated[float, Field(gt=0, strict=True)]


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
        gpu: A GPU type such as "A100" or "A100:2", or an ordered list of types to fall back
            through: when Modal has none of the first, the next is asked for. How many is
            `ResourceSettings.gpu_count`.
        region: A Modal region such as "us-east", or several to choose from.
        cloud: A cloud provider: "aws", "gcp", "oci" or "auto".
        modal_environment: The Modal environment of the app, its secrets and its volumes.
        workspace: The Modal workspace that the token has to belong to; another one is refused
            (exit code 3).
        app_name: The name of the Modal app.
        mode: "pipeline" runs all steps in one sandbox; "per_step" runs a sandbox per step.
        max_parallelism: How many steps may run at the same time. Without it one in `pipeline`
            mode, and any number in `per_step` mode.
        timeout: Seconds until the run is ended; on a step, until its sandbox is, which can only be
            earlier.
        synchronous: Whether `submit` waits for the end of the run.
        secrets: Names of Modal secrets whose keys become environment variables.
        volumes: Modal volumes to mount: name -> absolute path.
        image: Another image than the one made from the Docker settings (images.md).
        infrastructure_retries: How often a step whose sandbox is lost, through no fault of its
            own (preempted, killed from outside, could not start), is executed again in another
            one, for the same ZenML record. The retries of the step (`retry:`) are not used up.
            For `per_step` mode.
        prewarm: Which step sandboxes are created before their turn, so that they have started when
            it comes: "off", "cpu" for those without a GPU, or "all". Modal bills the waiting, and
            the summary says how long it was (per_step.md). For `per_step` mode.
        creation_rate: How many sandboxes a second are created at most. For `per_step` mode.
        cpu_limit: A hard limit on CPU cores, above the requested `cpu_count`.
        memory_limit: A hard limit on memory, such as "32GB".
    """

    # A credential written in the wrong place must not come back in the error text. And a step's
    # process, which checks nothing with it, needn't take the time to build the validator.
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True
    )

    gpu: Name | list[Name] | None = None
    region: Name | list[Name] | None = None
    cloud: Name | None = None
    modal_environment: Name | None = None
    workspace: Name | None = None
    app_name: Name | None = None
    mode: Mode | None = None
    max_parallelism: Annotated[StrictInt, Field(ge=1)] | None = None
    timeout: Annotated[StrictInt, Field(ge=1, le=MAX_TIMEOUT_SECONDS)] | None = None
    synchronous: StrictBool | None = None
    secrets: list[Name] | None = None
    volumes: dict[Name, Name] | None = None
    image: ImageSetting | None = None
    infrastructure_retries: Annotated[StrictInt, Field(ge=0)] | None = None
    prewarm: Prewarm | None = None
    creation_rate: Annotated[float, Field(gt=0, strict=True)] | None = None
    cpu_limit: Cores | None = None
    memory_limit: Name | None = None

    @field_validator("app_name", "modal_environment")
    @classmethod
    def _fits_modal(cls, value: str | None) -> str | None:
        return modal_name(value)

    @field_validator("gpu", "region")
    @classmethod
    def _not_an_empty_list(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("an empty list; leave the setting out instead")
        return value

    @field_validator("gpu")
    @classmethod
    def _gpu_types(cls, value: Any) -> Any:
        for gpu_type in [value] if isinstance(value, str) else value or ():
            split_gpu(gpu_type)
        return value

    @field_validator("prewarm", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        """YAML reads a bare `off` as false."""
        return "off" if value is False else value

    @field_validator("memory_limit")
    @classmethod
    def _amount_of_memory(cls, value: str | None) -> str | None:
        return _memory(value)

    @field_validator("volumes")
    @classmethod
    def _mount_paths(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for name, path in (value or {}).items():
            if not MODAL_NAME.fullmatch(name):
                raise ValueError(f"'{name}' is not the name of a Modal volume")
            if not path.startswith("/") or path.strip("/") == "" or ".." in path.split("/"):
                raise ValueError(
                    f"the volume '{name}' has to be mounted at an absolute path below '/', such as"
                    f" '/data', not at '{path}'"
                )
        if len({p.rstrip("/") for p in (value or {}).values()}) < len(value or {}):
            raise ValueError("two volumes are mounted at the same path")
        return value


class ResourceFields(BaseModel):
    """The fields of ZenML's `ResourceSettings` that a sandbox is made from, read strictly.

    Attributes:
        cpu_count: Physical cores. Below 0.125 it is raised, and said.
        gpu_count: How many GPUs; 0 for a CPU sandbox. A count without a type is an error, and so
            is more than Modal gives one sandbox.
        memory: An amount such as "16GB" (10^9 bytes) or "16GiB" (2^30), rounded up to MiB. Below
            128 MiB it is raised, and said.
    """

    # ZenML's other fields are ZenML's to check.
    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, defer_build=True
    )

    cpu_count: Cores | None = None
    gpu_count: Annotated[StrictInt, Field(ge=0)] | None = None
    memory: Name | None = None

    @field_validator("memory")
    @classmethod
    def _amount_of_memory(cls, value: str | None) -> str | None:
        return _memory(value)


FIELD_NAMES = frozenset(SettingFields.model_fields)
QUANTITIES = ("cpu_count", "memory", "gpu_count")
RESOURCE_KEYS = frozenset(
    {
        *QUANTITIES,
        "gpu_class",
        "resources",
        "pool_resources",
        "pool_resource_demands",
        "preemptible",
        "reclaim_tolerance",
        "allocation_wait_timeout_seconds",
        "initialization_lease_seconds",
        "min_replicas",
        "max_replicas",
        "autoscaling_metric",
        "autoscaling_target",
        "max_concurrency",
    }
)
"""The keys of `zenml.config.resource_settings.ResourceSettings`, 0.98.0."""

OUR_FLAVOR_KEYS = ("orchestrator", "orchestrator.modalrun")
ZENML_FLAVOR_KEYS = ("orchestrator.modal", "step_operator.modal")
"""Settings keys of ZenML's own Modal flavors. Their fields have ours' names and meaning."""


def modal_name(value: str | None) -> str | None:
    """The name of an app or environment.

    Raises:
        ValueError: Modal doesn't take it.
    """
    if value is not None and not MODAL_NAME.fullmatch(value):
        raise ValueError(
            "Modal takes 1 to 64 letters, digits, dashes, underscores and dots as a name"
            f" (it is {value!r})"
        )
    return value


def split_gpu(text: str) -> tuple[str, int | None]:
    """A GPU as Modal writes it, in type and count: "A100:2" -> ("A100", 2), "T4" -> ("T4", None).

    Raises:
        ValueError: The text is not a type, or its count is not a whole number above zero.
    """
    name, colon, count = text.partition(":")
    if not name.strip() or (colon and not (count.isascii() and count.isdigit() and int(count))):
        raise ValueError(f"'{text}' is not a GPU type; write 'A100', or 'A100:2' for two")
    return name, int(count) if colon else None


def _memory(value: str | None) -> str | None:
    if value is not None and not MEMORY.fullmatch(value):
        raise ValueError(
            f"'{value}' is not an amount of memory; write a whole number and a unit, such as '16GB'"
            " (10^9 bytes) or '16GiB' (2^30)"
        )
    return value
