"""Define the fields of `ModalOrchestratorSettings` in plain pydantic, importable without ZenML.

`modalrun.settings` adds ZenML's base class; the plan reads the fields from a compiled deployment.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from modalrun.run.run_plan import Mode
from modalrun.util.modal_catalog import MAX_TIMEOUT, NO_MOUNT_POINTS, OBJECT_NAME
from modalrun.util.timeparse import DURATION_FORMS, duration

MAX_WAIT_SECONDS = 7 * 86_400
"""The longest wait for a place that makes sense."""

DEFAULT_TIMEOUT_SECONDS = 6 * 3600
"""A ceiling of the cost that a user can weigh; most runs are shorter."""

MEMORY = re.compile(r"([0-9]{1,31})([KMGTP]i?B|B)")
"""An amount of memory in ZenML's notation (`zenml/config/resource_settings.py`, 0.98.0)."""


def _modal_name(value: str) -> str:
    if not re.fullmatch(OBJECT_NAME, value):
        raise ValueError(
            "Modal takes 1 to 64 letters, digits, dashes, underscores and dots as a name"
            f" (it is {value!r})"
        )
    return value


def _memory(value: Any) -> Any:
    # Of a number alone pydantic only says that it must be a string.
    scalar = isinstance(value, str | int | float) and not isinstance(value, bool)
    if scalar and not MEMORY.fullmatch(str(value)):
        raise ValueError(
            f"'{value}' is not an amount of memory; write a whole number and a unit, such as '16GB'"
            " (10^9 bytes) or '16GiB' (2^30)"
        )
    return value


def _whole_seconds(value: Any) -> Any:
    """Convert a duration as people write it to whole seconds."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = duration(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise PydanticCustomError("duration_type", f"Input should be {DURATION_FORMS}")


def _mount_paths(volumes: dict[str, str]) -> dict[str, str]:
    """Return the volumes with canonical paths, which alone Modal takes."""
    canonical = {name: f"/{posixpath.normpath(path).lstrip('/')}" for name, path in volumes.items()}
    for name, path in volumes.items():
        if not re.fullmatch(OBJECT_NAME, name):
            raise ValueError(f"'{name}' is not the name of a Modal volume")
        if not path.startswith("/") or canonical[name] == "/" or ".." in path.split("/"):
            raise ValueError(
                f"the volume '{name}' must be mounted at an absolute path below '/', such as"
                f" '/data', not at '{path}'"
            )
        if canonical[name] in NO_MOUNT_POINTS:
            raise ValueError(
                f"the volume '{name}' can't be mounted at '{path}'; Modal mounts none there"
            )
    if len(set(canonical.values())) < len(volumes):
        raise ValueError("two volumes are mounted at the same path")
    return canonical


Name = Annotated[StrictStr, Field(min_length=1)]
ModalName = Annotated[Name, AfterValidator(_modal_name)]
Memory = Annotated[Name, BeforeValidator(_memory)]
Duration = Annotated[int | str, BeforeValidator(_whole_seconds)]
"""Seconds, or a text such as "2h" or "1h30m"; a validated model holds whole seconds."""
ZenMLDuration = Annotated[
    int, BeforeValidator(lambda value: _whole_seconds(value) if isinstance(value, str) else value)
]
"""The same in place of ZenML's number of seconds, which takes more kinds of values than ours."""
Volumes = Annotated[dict[Name, Name], AfterValidator(_mount_paths)]
Rate = Annotated[float, Field(gt=0, le=1_000, strict=True, allow_inf_nan=False)]
Cores = Annotated[float, Field(gt=0, le=10_000, strict=True, allow_inf_nan=False)]

_IMAGE_FORMS = "write either {source: registry} or {name: <a Modal image>}"
"""Or neither, with `keep_entrypoint` alone, which few need."""


class ImageSetting(BaseModel):
    """Name an image other than the one made from the Docker settings.

    Attributes:
        source: "registry" for the image that ZenML builds, with Docker, and pushes to the
            container registry of the stack.
        name: The name of an image published in Modal ("my-image", "my-image:v2",
            "environment/my-image"), or its id ("im-...").
        keep_entrypoint: Whether an ENTRYPOINT of the image wraps the command of its sandboxes;
            it must end with `exec` of its arguments (images.md). Without it there is none. May
            stand alone: then the image is made from the Docker settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["registry"] | None = None
    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9\-_./:]+$")] | None = None
    keep_entrypoint: StrictBool | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: Any) -> Any:
        if not isinstance(value, Mapping | ImageSetting):
            raise ValueError(_IMAGE_FORMS)
        return value

    @model_validator(mode="after")
    def _one_of_them(self) -> ImageSetting:
        given = [self.source, self.name].count(None)
        if given == 0 or (given == 2 and self.keep_entrypoint is None):
            raise ValueError(_IMAGE_FORMS)
        return self


class SettingFields(BaseModel):
    """List the settings under `settings: {orchestrator: ...}`, of a pipeline or a step.

    Every field is None until it is set: ZenML stores settings with their defaults filled in, so
    a default here would look like a value that the user set.

    Attributes:
        gpu: A GPU type such as "A100" or "A100:2", or a list of types: when Modal has none of
            the first, the next is requested. The count is `ResourceSettings.gpu_count`.
        gpu_wait: How long to wait for a place for each GPU type; by default "90s" while other types
            remain, else as long as the run may last. The waiting sandbox's timeout and cost don't
            count the wait.
        wait_for_capacity: How long to ask Modal again and again for a place for the run sandbox,
            each GPU type in turn, instead of exit code 5; by default each type is asked for once.
        region: A Modal region such as "us-east", or several to choose from.
        cloud: A cloud provider: "aws", "gcp", "oci" or "auto".
        modal_environment: The Modal environment of the app, its secrets and its volumes. By
            default MODAL_ENVIRONMENT, or that of the profile, or the workspace's own default.
        workspace: The Modal workspace that the token must belong to; with a token of another
            one the run is refused (exit code 3).
        app_name: The name of the Modal app.
        mode: "pipeline" runs all steps in one sandbox; "per_step" runs a sandbox per step.
        max_parallelism: How many steps may run at the same time: by default one in `pipeline`
            mode, and any number in `per_step` mode.
        timeout: How long the run may take before it is terminated: seconds, or a text such as
            "90m" or "2h". On a step, how long its sandbox may, which is never longer.
        synchronous: Whether `submit` waits for the end of the run.
        secrets: Names of Modal secrets whose keys become environment variables.
        volumes: Modal volumes to mount: name -> absolute path.
        image: An image other than the one made from the Docker settings (images.md).
        source_include: Files and folders below the source root that go to the sandbox although
            Git ignores them. Credential files go only if they are named themselves (images.md).
        infrastructure_retries: How often a step is executed again after its sandbox was lost
            through no fault of the step (preempted, killed from outside, could not start). It
            keeps its ZenML record, and uses up none of its own retries (`retry:`). In `pipeline`
            mode, how often the run sandbox is requested again if it could not start.
        keep_warm: How long a step's sandbox waits at most, after its step, for another one
            that needs the same sandbox. 0 is a fresh sandbox for each step. Modal bills the waiting
            time, which the summary shows (modes.md). For `per_step` mode.
        creation_rate: The most sandboxes created a second. For `per_step` mode.
        cpu_limit: A hard limit on CPU cores, above the requested `cpu_count`.
        memory_limit: A hard limit on memory, such as "32GB".
    """

    # A credential in the wrong field must not appear in the error. Processes that validate
    # nothing save the time to build the validator.
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True
    )

    gpu: Name | list[Name] | None = None
    gpu_wait: Annotated[Duration, Field(ge=1, le=MAX_WAIT_SECONDS)] | None = None
    wait_for_capacity: Annotated[Duration, Field(ge=1, le=MAX_WAIT_SECONDS)] | None = None
    region: Name | list[Name] | None = None
    cloud: Name | None = None
    modal_environment: ModalName | None = None
    workspace: Name | None = None
    app_name: ModalName | None = None
    mode: Mode | None = None
    max_parallelism: Annotated[StrictInt, Field(ge=1, le=100_000)] | None = None
    timeout: Annotated[Duration, Field(ge=1, le=MAX_TIMEOUT)] | None = None
    synchronous: StrictBool | None = None
    secrets: list[Name] | None = None
    volumes: Volumes | None = None
    image: ImageSetting | None = None
    source_include: list[Name] | None = None
    infrastructure_retries: Annotated[StrictInt, Field(ge=0, le=1_000)] | None = None
    keep_warm: Annotated[Duration, Field(ge=0, le=MAX_TIMEOUT)] | None = None
    creation_rate: Rate | None = None
    cpu_limit: Cores | None = None
    memory_limit: Memory | None = None

    def values(self) -> dict[str, Any]:
        """Return the fields that are set, as plain values."""
        return self.model_dump(exclude_unset=True, exclude_none=True)

    @field_validator("gpu", "region")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("an empty list; leave the setting out instead")
        for name in [value] if isinstance(value, str) else value or ():
            if re.search(r"""[][,"']""", name):
                raise ValueError(f"'{name}' is not a name; write several as [first, second]")
        return value

    @field_validator("gpu")
    @classmethod
    def _gpu_types(cls, value: Any) -> Any:
        for gpu_type in [value] if isinstance(value, str) else value or ():
            split_gpu(gpu_type)
        return value


class ResourceFields(BaseModel):
    """List the fields of ZenML's `ResourceSettings` that shape a sandbox, read strictly.

    Attributes:
        cpu_count: Physical cores. Less than 0.125 is raised to it, with a note.
        gpu_count: The number of GPUs; 0 for a CPU sandbox. A count without a type is an error, and
            so is more than Modal gives one sandbox.
        memory: An amount such as "16GB" (10^9 bytes) or "16GiB" (2^30), rounded up to MiB. Less
            than 128 MiB is raised to it, with a note.
    """

    # ZenML checks its other fields.
    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, defer_build=True
    )

    cpu_count: Cores | None = None
    gpu_count: Annotated[StrictInt, Field(ge=0, le=1_000)] | None = None
    memory: Memory | None = None


FIELD_NAMES = frozenset(SettingFields.model_fields)
REPLACED = {"prewarm": "keep_warm: SECONDS"}
"""Settings that there are no more -> what to write instead."""
QUANTITIES = ("cpu_count", "memory", "gpu_count")
RESOURCE_KEYS = frozenset(
    {
        *(*QUANTITIES, "gpu_class", "resources", "pool_resources", "pool_resource_demands"),
        *("preemptible", "reclaim_tolerance", "allocation_wait_timeout_seconds"),
        *("initialization_lease_seconds", "min_replicas", "max_replicas", "max_concurrency"),
        *("autoscaling_metric", "autoscaling_target"),
    }
)
"""The keys of `zenml.config.resource_settings.ResourceSettings`, 0.98.0."""

OUR_FLAVOR_KEYS = ("orchestrator", "orchestrator.modalrun")
ZENML_FLAVOR_KEYS = ("orchestrator.modal", "step_operator.modal")
"""Settings keys of ZenML's own Modal flavors. Their fields have ours' names and meaning."""


def split_gpu(text: str) -> tuple[str, int | None]:
    """Split Modal's notation of a GPU: "A100:2" -> ("A100", 2), "T4" -> ("T4", None).

    Raises:
        ValueError: The text is not a type, or its count is not a whole number above zero.
    """
    name, colon, count = text.partition(":")
    if not name.strip() or (colon and not (re.fullmatch("[0-9]{1,4}", count) and int(count))):
        raise ValueError(f"'{text}' is not a GPU type; write 'A100', or 'A100:2' for two")
    return name, int(count) if colon else None
