"""`ModalOrchestratorSettings`: what a user writes in `@pipeline`, `@step` and YAML."""

from __future__ import annotations

from pydantic import ConfigDict
from zenml.config.base_settings import BaseSettings

from modalrun.spec.fields import SettingFields


class ModalOrchestratorSettings(SettingFields, BaseSettings):
    """Settings for running a pipeline, or one of its steps, on Modal.

    The fields are described at `modalrun.spec.fields.SettingFields`. How many CPUs and GPUs
    and how much memory is ZenML's own `ResourceSettings`.

    Raises:
        pydantic.ValidationError: A field is unknown, has a wrong type or is out of its bounds.
            ZenML's own settings drop unknown fields with a warning; a misspelt `gpu` would then
            train on a CPU, so here it is an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
