"""The run spec: a ZenML run configuration plus a few keys of ours, in one YAML file.

Reading a spec needs neither ZenML nor Modal, so that a misspelt key is reported at once. What
ZenML has to say about the values comes later, in `modalrun.zenml_api`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from modalrun.errors import UsageError
from modalrun.setting_fields import FIELD_NAMES, ImageSetting, Name, SettingFields, not_supported
from modalrun.yaml_source import KeyPath, YamlSource, nearest, read_yaml

Target = Literal["modal", "local"]

RUN_KEYS = frozenset(
    {
        "run_name",
        "enable_cache",
        "enable_artifact_metadata",
        "enable_artifact_visualization",
        "enable_step_logs",
        "enable_pipeline_logs",
        "enable_heartbeat",
        "schedule",
        "build",
        "steps",
        "settings",
        "environment",
        "secrets",
        "tags",
        "extra",
        "model",
        "parameters",
        "retry",
        "init_hook_source",
        "init_hook_kwargs",
        "cleanup_hook_source",
        "failure_hook_source",
        "success_hook_source",
        "start_hook_source",
        "end_hook_source",
        "pause_hook_source",
        "resume_hook_source",
        "substitutions",
        "cache_policy",
        "execution_mode",
    }
)
"""The keys of `zenml.config.pipeline_run_configuration.PipelineRunConfiguration`, 0.98.0."""

STEP_KEYS = frozenset(
    {
        "enable_cache",
        "enable_artifact_metadata",
        "enable_artifact_visualization",
        "enable_step_logs",
        "step_operator",
        "experiment_tracker",
        "parameters",
        "settings",
        "environment",
        "secrets",
        "extra",
        "failure_hook_source",
        "success_hook_source",
        "start_hook_source",
        "end_hook_source",
        "model",
        "retry",
        "substitutions",
        "cache_policy",
        "runtime",
        "heartbeat_healthy_threshold",
        "group",
        "outputs",
    }
)
"""The keys of `zenml.config.step_configurations.StepConfigurationUpdate`, 0.98.0."""

OUR_FLAVOR_KEYS = ("orchestrator", "orchestrator.modalrun")

_REFUSED = {
    "deployment": "A compiled deployment can't be submitted yet; name a 'pipeline'.",
    "schedule": "Scheduled pipelines are not supported. Let a scheduler (cron, CI) call submit.",
    "build": "ZenML's own image builds are not used; the image is made from 'settings: docker'.",
}


class _ModalSection(BaseModel):
    """The key `modal` of a run spec."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: Name | None = None
    workspace: Name | None = None
    secrets: list[Name] | None = None
    volumes: dict[Name, Name] | None = None


class _OurKeys(BaseModel):
    """The keys that modalrun adds to ZenML's run configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Annotated[StrictStr, Field(min_length=1)] | None = None
    deployment: Name | None = None
    stack: Name | None = None
    target: Target = "modal"
    source_root: Name | None = None
    modal: _ModalSection = _ModalSection()
    image: ImageSetting | None = None


@dataclass(frozen=True)
class RunSpec:
    """A checked run spec.

    Attributes:
        pipeline: The pipeline's source below the source root, such as
            `my_project.pipelines.training`.
        stack: Name or id of the ZenML stack to compile for; None for the active one.
        target: Where the sandboxes run.
        source_root: The folder that the pipeline is imported from and that goes to the sandbox.
        run_configuration: What ZenML reads, as plain values.
        source: The file, to point at the line of a value that turns out to be wrong.
    """

    pipeline: str
    stack: str | None
    target: Target
    source_root: Path
    run_configuration: Mapping[str, Any]
    source: YamlSource = field(repr=False)

    def error(
        self, key_path: Iterable[str | int], problem: str, hint: str | None = None
    ) -> UsageError:
        """An error that points at a key of the file."""
        return UsageError(f"{self.source.where(key_path)}: {problem}", hint=hint)


def load_spec(path: Path, *, target: Target | None = None) -> RunSpec:
    """Read and check a run spec.

    Args:
        path: The YAML file.
        target: Where to run, above what the file says.

    Raises:
        UsageError: The file or a key in it is wrong; the message says where.
    """
    source = read_yaml(path)
    data = source.data
    _refuse_unknown(source, (), data, set(_OurKeys.model_fields) | RUN_KEYS)
    ours = _check(
        source, (), _OurKeys, {k: v for k, v in data.items() if k in _OurKeys.model_fields}
    )
    for key, why in _REFUSED.items():
        if data.get(key) is not None:
            raise UsageError(f"{source.where((key,))}: {why}")
    if ours.pipeline is None:
        raise UsageError(
            f"{path}: the key 'pipeline' is missing.",
            hint="Name the pipeline by its source, as in 'pipeline: my_project.training.pipeline'.",
        )
    if "." not in ours.pipeline or not all(p.isidentifier() for p in ours.pipeline.split(".")):
        raise UsageError(
            f"{source.where(('pipeline',))}: '{ours.pipeline}' is not a source (module.function).",
            hint="As in 'pipeline: my_project.training.pipeline', without '.py' or slashes.",
        )
    configuration = {k: v for k, v in data.items() if k in RUN_KEYS and v is not None}
    _check_settings(source, ("settings",), configuration.get("settings"))
    _check_steps(source, configuration.get("steps"))
    if isinstance(configuration.get("steps"), dict):
        # `steps: {train: }` says nothing about train; ZenML would call the null an error.
        configuration["steps"] = {k: v or {} for k, v in configuration["steps"].items()}
    configuration = _with_modal_section(source, ours.modal, configuration)
    configuration = _with_image(source, ours.image, configuration)
    return RunSpec(
        pipeline=ours.pipeline,
        stack=ours.stack,
        target=target or ours.target,
        source_root=_source_root(source, ours.source_root),
        run_configuration=configuration,
        source=source,
    )


def validation_message(error: ValidationError) -> tuple[KeyPath, str]:
    """The first problem of a pydantic error, as the path of its key and one sentence."""
    first = error.errors(include_url=False)[0]
    # Pydantic adds the tried branches of a union (`list[str]`, `function-...`) to the location.
    where = tuple(p for p in first["loc"] if isinstance(p, int) or p.replace("_", "").isalnum())
    value = first.get("input")
    shown = f" (it is {value!r})" if isinstance(value, str | int | float | bool) else ""
    if isinstance(value, dict | list):
        shown = f" (it is a {'mapping' if isinstance(value, dict) else 'list'})"
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    return where, f"{message[:1].lower()}{message[1:]}{shown}."


def _check(source: YamlSource, at: KeyPath, model: type[Any], value: Any) -> Any:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        where, problem = validation_message(error)
        full = (*at, *where)
        unknown = error.errors()[0]["type"] == "extra_forbidden"
        if unknown:
            raise _unknown_key(source, full, model.model_fields) from None
        name = ".".join(str(p) for p in full if not isinstance(p, int)) or "run spec"
        raise UsageError(f"{source.where(full)}: '{name}': {problem}") from None


def _unknown_key(source: YamlSource, at: KeyPath, known: Iterable[str]) -> UsageError:
    key, parent = str(at[-1]), ".".join(str(p) for p in at[:-1])
    close = nearest(key, known)
    inside = f" under '{parent}'" if parent else ""
    return UsageError(
        f"{source.where(at)}: unknown key '{key}'{inside}.",
        hint=f"Did you mean '{close}'?" if close else f"Valid keys: {', '.join(sorted(known))}.",
    )


def _refuse_unknown(
    source: YamlSource, at: KeyPath, data: Mapping[Any, Any], known: Iterable[str]
) -> None:
    known = set(known)
    for key in data:
        if key not in known:
            raise _unknown_key(source, (*at, str(key)), known)


def _mapping(source: YamlSource, at: KeyPath, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    name = ".".join(str(p) for p in at)
    raise UsageError(
        f"{source.where(at)}: '{name}' has to be a mapping (key: value), not"
        f" {'a list' if isinstance(value, list) else repr(value)}."
    )


def _check_steps(source: YamlSource, steps: Any) -> None:
    if steps is None:
        return
    for name, step in _mapping(source, ("steps",), steps).items():
        if step is None:
            continue
        at = ("steps", name)
        _refuse_unknown(source, at, _mapping(source, at, step), STEP_KEYS)
        _check_settings(source, (*at, "settings"), step.get("settings"))


def _check_settings(source: YamlSource, at: KeyPath, settings: Any) -> None:
    if settings is None:
        return
    settings = _mapping(source, at, settings)
    given = [key for key in OUR_FLAVOR_KEYS if key in settings]
    if len(given) > 1:
        raise UsageError(
            f"{source.where((*at, given[1]))}: settings for the orchestrator stand here twice, as"
            f" '{given[0]}' and as '{given[1]}'.",
            hint="Keep 'orchestrator'.",
        )
    for key in settings:
        _check_settings_key(source, at, str(key))
    for key in given:
        value = settings[key]
        if value is None:
            continue
        here = (*at, key)
        value = _mapping(source, here, value)
        _refuse_unknown(source, here, value, FIELD_NAMES)
        _check(source, here, SettingFields, value)
        _refuse_unsupported(source, here, value)


def _refuse_unsupported(source: YamlSource, at: KeyPath, settings: Mapping[str, Any]) -> None:
    unsupported = not_supported(settings)
    if unsupported is not None:
        name, instead = unsupported
        raise UsageError(
            f"{source.where((*at, name))}: '{name}' is not supported yet: {instead}.",
            hint="Remove it; modalrun doesn't ignore settings silently.",
        )


def _check_settings_key(source: YamlSource, at: KeyPath, key: str) -> None:
    if key in {"resources", "docker", "deployment"} or key.partition(":")[2]:
        return
    kind, _, flavor = key.partition(".")
    known = {"orchestrator", "resources", "docker", "deployment"}
    if not flavor and kind not in {*known, *_COMPONENTS}:
        raise _unknown_key(source, (*at, key), known)
    if kind == "orchestrator" and flavor not in {"", "modalrun"}:
        raise UsageError(
            f"{source.where((*at, key))}: settings for the orchestrator flavor '{flavor}' have no"
            " effect on a modalrun run.",
            hint="Write them under 'orchestrator'.",
        )


_COMPONENTS = frozenset(
    {
        "step_operator",
        "experiment_tracker",
        "sandbox",
        "image_builder",
        "deployer",
        "model_deployer",
    }
)
"""Stack components that have settings of their own in ZenML 0.98."""


def _with_modal_section(
    source: YamlSource, section: _ModalSection, configuration: dict[str, Any]
) -> dict[str, Any]:
    _refuse_unsupported(source, ("modal",), section.model_dump())
    if section.environment is None:
        return configuration
    settings = dict(configuration.get("settings") or {})
    key = next((k for k in OUR_FLAVOR_KEYS if k in settings), OUR_FLAVOR_KEYS[0])
    ours = dict(settings.get(key) or {})
    if ours.get("modal_environment") not in {None, section.environment}:
        raise UsageError(
            f"{source.where(('modal', 'environment'))}: the Modal environment is given twice:"
            f" '{section.environment}' here and '{ours['modal_environment']}' under"
            f" 'settings.{key}.modal_environment'.",
            hint="Keep one of them.",
        )
    ours["modal_environment"] = section.environment
    # Checked with the rest, so that a bad name is reported at its own line.
    _check(source, ("modal",), _EnvironmentName, {"environment": section.environment})
    return {**configuration, "settings": {**settings, key: ours}}


def _with_image(
    source: YamlSource, image: ImageSetting | None, configuration: dict[str, Any]
) -> dict[str, Any]:
    """The configuration with the key `image` as the orchestrator setting that it stands for."""
    if image is None:
        return configuration
    settings = dict(configuration.get("settings") or {})
    key = next((k for k in OUR_FLAVOR_KEYS if k in settings), OUR_FLAVOR_KEYS[0])
    ours = dict(settings.get(key) or {})
    if ours.get("image") is not None:
        raise UsageError(
            f"{source.where(('image',))}: the image is given twice, here and under"
            f" 'settings.{key}.image'.",
            hint="Keep one of them.",
        )
    ours["image"] = image.model_dump(exclude_none=True)
    return {**configuration, "settings": {**settings, key: ours}}


class _EnvironmentName(BaseModel):
    environment: Annotated[str, Field(pattern=r"^[A-Za-z0-9\-_.]{1,64}$")]


def _source_root(source: YamlSource, given: str | None) -> Path:
    spec_folder = source.path.resolve().parent
    if given is not None:
        root = (spec_folder / Path(given).expanduser()).resolve()
        if not root.is_dir():
            raise UsageError(
                f"{source.where(('source_root',))}: there is no folder {root}.",
                hint="'source_root' is read relative to the run spec.",
            )
        return root
    for folder in (spec_folder, *spec_folder.parents):
        if (folder / ".zen").is_dir():
            return folder
    return spec_folder
