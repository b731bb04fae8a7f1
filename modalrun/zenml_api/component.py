"""Check the values of a stack's orchestrator, which are defaults of the settings.

Does not import ZenML; `orchestrator_config` has ZenML's class for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ConfigDict, ValidationError, model_validator

from modalrun.errors import UsageError
from modalrun.run.run_plan import Target
from modalrun.spec.fields import FIELD_NAMES, SettingFields
from modalrun.spec.messages import path_name
from modalrun.spec.precedence import SettingsLayer
from modalrun.util.text import shell_word

FLAVOR = "modalrun"
"""The name of the flavor."""

OUR_FLAVORS = (FLAVOR, "modal")
"""Flavors of orchestrators whose component values are read as defaults."""

_TEXTS = frozenset({"cloud", "modal_environment", "workspace", "app_name", "mode", "memory_limit"})

_SECRET = re.compile(r"\{\{\s*\S+?\.\S+\s*\}\}")


@dataclass(frozen=True)
class OrchestratorComponent:
    """The orchestrator of a stack as ZenML stores it."""

    name: str
    flavor: str
    configuration: dict[str, Any]


class ComponentValues(SettingFields):
    """The values of an orchestrator component. See `orchestrator_config`."""

    model_config = ConfigDict(frozen=False, extra="forbid", hide_input_in_errors=True)

    token_id: str | None = None
    token_secret: str | None = None
    target: Target = "modal"

    @property
    def token(self) -> tuple[str, str] | None:
        """The Modal token; each half may be a reference to a secret of ZenML's (`is_reference`)."""
        token_id, token_secret = self.token_id, self.token_secret
        return (token_id, token_secret) if token_id and token_secret else None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, values: Any) -> Any:
        """Parse the strings of `zenml orchestrator register --timeout=60 --gpu='[H100, A100]'`."""
        if not isinstance(values, dict):
            return values
        parsed = dict(values)
        for name in FIELD_NAMES - _TEXTS:
            text = parsed.get(name)
            listed = name in {"gpu", "region"} and not str(text).lstrip().startswith("[")
            if isinstance(text, str) and not listed:
                try:
                    parsed[name] = yaml.safe_load(text)
                except yaml.YAMLError:
                    continue
        return parsed

    @model_validator(mode="after")
    def _whole_token(self) -> ComponentValues:
        # Attribute access would read a referenced secret from ZenML's secret store.
        given = [name for name in ("token_id", "token_secret") if self.__dict__.get(name)]
        if len(given) == 1:
            missing = "token_secret" if given[0] == "token_id" else "token_id"
            raise ValueError(f"'{given[0]}' is set without '{missing}'; set both or neither")
        return self

    def __repr_args__(self) -> Any:
        """Hide the token wherever the values are shown."""
        hidden = {"token_id", "token_secret"}
        return [(n, "***" if n in hidden and v else v) for n, v in super().__repr_args__()]


def component_values(component: OrchestratorComponent) -> ComponentValues:
    """Return the values of a stack's orchestrator; none if it isn't for Modal.

    Raises:
        UsageError: Its values are wrong, or half a token pair.
    """
    if component.flavor not in OUR_FLAVORS:
        return ComponentValues()
    known = {
        name: value
        for name, value in component.configuration.items()
        if name in ComponentValues.model_fields and value is not None
    }
    try:
        return ComponentValues(**known)
    except ValidationError as error:
        # Its own imports take a step's process 10 ms.
        from modalrun.spec.validation import validation_message

        where, problem = validation_message(error, known)
        at = f": '{path_name(where)}'" if where else ""
        raise UsageError(
            f"The orchestrator '{component.name}' of the stack{at}{problem}",
            hint=f"Change it with 'zenml orchestrator update {shell_word(component.name)} ...'.",
        ) from None


def component_defaults(values: ComponentValues) -> SettingsLayer:
    """Return the settings that a component gives as defaults."""
    given = values.model_dump(include=set(FIELD_NAMES), exclude_unset=True, exclude_none=True)
    return SettingsLayer(given)


def is_reference(value: str) -> bool:
    """Return whether a value names a secret of ZenML's (`utils/secret_utils.py`, 0.98.0)."""
    return _SECRET.fullmatch(value) is not None
