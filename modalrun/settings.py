"""Define `ModalOrchestratorSettings`, the settings in `@pipeline`, `@step` and YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from zenml.config.base_settings import BaseSettings

from modalrun.spec.fields import SettingFields

if TYPE_CHECKING:
    from typing_extensions import Self


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

    @model_validator(mode="wrap")
    @classmethod
    def _says_what_to_write(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            # Its own imports take a step's process 10 ms.
            from modalrun.spec.validation import with_hints

            raise with_hints(error, cls) from None
