"""Read the sandbox settings of the code before ZenML compiles.

ZenML drops settings of flavors that the stack doesn't have, and merges those of code, run
configuration and component. They are read here while they are still apart; the resolved settings
are put back for ZenML to store with the deployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from zenml.config.base_settings import BaseSettings
from zenml.pipelines.pipeline_definition import Pipeline

from modalrun.errors import UsageError
from modalrun.settings import ModalOrchestratorSettings
from modalrun.spec.fields import OUR_FLAVOR_KEYS, ZENML_FLAVOR_KEYS, ResourceFields
from modalrun.spec.messages import path_name
from modalrun.spec.precedence import SettingsLayer
from modalrun.spec.sandbox_settings import other_flavor_note
from modalrun.spec.validation import Mistakes, one_error, validation_messages


def read_code(
    settings: Mapping[str, BaseSettings], owner: str, orchestrator: str
) -> tuple[SettingsLayer, list[str]]:
    """Read the sandbox settings that the code gives to a pipeline or step.

    Args:
        settings: Its `configuration.settings`, before anything is merged into them.
        owner: Description of the pipeline or step, for messages.
        orchestrator: The name of the stack's orchestrator; `orchestrator:<name>` is for it.

    Returns:
        The settings, and notes on how they were read.

    Raises:
        UsageError: Settings don't exist, or their values are wrong: a line for each.
    """
    notes: list[str] = []
    mistakes = Mistakes()
    ours: dict[str, Any] = {}
    own_keys = (*OUR_FLAVOR_KEYS, f"orchestrator:{orchestrator}")
    for key in (*reversed(ZENML_FLAVOR_KEYS), *own_keys):
        if key not in settings:
            continue
        values, at = _dump(settings[key]), f"{owner}: 'settings.{key}"
        with mistakes.collecting():
            ours.update(_checked(ModalOrchestratorSettings, values, at).values())
        if key in ZENML_FLAVOR_KEYS:
            notes.append(other_flavor_note(owner, key))
    resources = _dump(settings["resources"]) if "resources" in settings else {}
    with mistakes.collecting():
        _checked(ResourceFields, resources, f"{owner}: 'settings.resources")
    mistakes.raise_all()
    return SettingsLayer(ours, resources), notes


def set_settings(
    pipeline: Pipeline, resolved: SettingsLayer, steps: Mapping[str, SettingsLayer], name: str
) -> None:
    """Replace the sandbox settings of a pipeline and its steps by resolved ones.

    Args:
        pipeline: A prepared pipeline, a copy of the user's.
    """
    replaced = {*OUR_FLAVOR_KEYS, *ZENML_FLAVOR_KEYS, "resources", f"orchestrator:{name}"}

    def merged(old: Mapping[str, BaseSettings], layer: SettingsLayer) -> dict[str, BaseSettings]:
        result = {key: value for key, value in old.items() if key not in replaced}
        for key, values in (("orchestrator", layer.settings), ("resources", layer.resources)):
            if values:
                result[key] = BaseSettings(**values)
        return result

    with pipeline.__suppress_configure_warnings__():
        pipeline.configure(settings=merged(pipeline.configuration.settings, resolved), merge=False)
    for step, invocation in pipeline.invocations.items():
        invocation.step = invocation.step.copy()
        own = merged(invocation.step.configuration.settings, steps[step])
        invocation.step.configure(settings=own, merge=False)


def _dump(settings: BaseSettings) -> dict[str, Any]:
    dump: dict[str, Any] = settings.model_dump(exclude_unset=True, exclude_none=True)
    return dump


def _checked(model: type[Any], values: dict[str, Any], at: str) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = validation_messages(error, values)
        raise one_error(
            [UsageError(f"{at}.{path_name(where)}'{problem}") for where, problem in wrong]
        ) from None
