"""Define `ModalOrchestratorSettings`, the settings in `@pipeline`, `@step` and YAML."""

from __future__ import annotations

from pydantic import ConfigDict
from zenml.config.base_settings import BaseSettings

from modalrun.spec.fields import SettingFields


class ModalOrchestratorSettings(SettingFields, BaseSettings):
    """Configure how a pipeline, or one of its steps, runs on Modal.

    `modalrun.spec.fields.SettingFields` describes the fields. CPUs, memory and the number of GPUs
    are set with ZenML's own `ResourceSettings`.

    Raises:
        pydantic.ValidationError: A field is unknown, has a wrong type or is out of its bounds.
            ZenML's own settings drop unknown fields with a warning; a misspelt `gpu` would then
            train on a CPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
