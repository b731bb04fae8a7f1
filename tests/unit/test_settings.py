"""ModalOrchestratorSettings: exactly SettingFields, on ZenML's base class."""

import pytest
from pydantic import ValidationError
from zenml.config.base_settings import BaseSettings

from modalrun.settings import ModalOrchestratorSettings
from modalrun.spec.fields import FIELD_NAMES, SettingFields


def test_same_fields() -> None:
    own = {
        name: (field.annotation, field.metadata)
        for name, field in ModalOrchestratorSettings.model_fields.items()
        if name not in BaseSettings.model_fields
    }
    assert own == {
        name: (field.annotation, field.metadata)
        for name, field in SettingFields.model_fields.items()
    }
    assert set(own) == FIELD_NAMES
    assert issubclass(ModalOrchestratorSettings, BaseSettings)


def test_nothing_is_set_by_default() -> None:
    settings = ModalOrchestratorSettings()
    assert set(settings.model_dump(exclude_unset=True)) == set()
    assert {getattr(settings, name) for name in FIELD_NAMES} == {None}


@pytest.mark.parametrize("model", [SettingFields, ModalOrchestratorSettings])
def test_unknown_fields_are_forbidden(model: type[SettingFields]) -> None:
    with pytest.raises(ValidationError) as caught:
        model(gppu="T4")  # type: ignore[call-arg]
    assert caught.value.errors()[0]["type"] == "extra_forbidden"


def test_an_unknown_field_is_told_the_right_one_beside_other_mistakes() -> None:
    values = {"gpus": "A100", "memory": "1GB", "image": {"nam": "x"}, "timeout": 0}
    with pytest.raises(ValidationError) as caught:
        ModalOrchestratorSettings.model_validate(values)
    assert {one["loc"]: one["msg"] for one in caught.value.errors()} == {
        ("gpus",): "Unknown setting 'gpus'. Did you mean 'gpu'?",
        ("memory",): "Unknown setting 'memory'. 'memory' is 'settings: resources: memory'.",
        ("image", "nam"): "Unknown setting 'nam'. Did you mean 'name'?",
        ("timeout",): "Input should be greater than or equal to 1",
    }
    # A wrong field may hold a secret.
    assert "A100" not in str(caught.value)


@pytest.mark.parametrize("model", [SettingFields, ModalOrchestratorSettings])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout", 0),
        ("timeout", 86_401),
        ("timeout", "soon"),
        ("timeout", "25h"),
        ("timeout", True),
        ("gpu", []),
        ("gpu", 1),
        ("gpu", ["T4", ""]),
        ("region", []),
        ("synchronous", "yes"),
        ("mode", "fast"),
        ("app_name", "a b"),
        ("modal_environment", "a/b"),
    ],
)
def test_bad_values(model: type[SettingFields], field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        model.model_validate({field: value})


@pytest.mark.parametrize("value", ["2h", "120m", "1h60m", "7200s", "7200", 7200])
def test_a_timeout_is_stored_in_seconds(value: object) -> None:
    settings = ModalOrchestratorSettings.model_validate({"timeout": value})
    assert settings.model_dump(mode="json", exclude_unset=True) == {"timeout": 7200}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout", 1),
        ("timeout", 86_400),
        ("gpu", ["A100", "T4"]),
        ("region", "us"),
        ("app_name", "a.b-C_9"),
    ],
)
def test_good_values(field: str, value: object) -> None:
    settings = ModalOrchestratorSettings.model_validate({field: value})
    assert settings.model_dump(exclude_unset=True) == {field: value}


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        ModalOrchestratorSettings().gpu = "T4"  # type: ignore[misc]
