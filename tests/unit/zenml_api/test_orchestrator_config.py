"""The configuration of the orchestrator component."""

import pytest
from pydantic import ValidationError

from modalrun.spec.fields import FIELD_NAMES
from modalrun.spec.validation import validation_message
from modalrun.zenml_api.component import component_defaults
from modalrun.zenml_api.orchestrator_config import ModalOrchestratorConfig

SECRET = "as-not-to-be-shown"


def test_every_setting_has_a_default_there() -> None:
    assert set(ModalOrchestratorConfig.model_fields) >= FIELD_NAMES


def test_values_of_zenmls_command_line_are_texts() -> None:
    config = ModalOrchestratorConfig(
        timeout="60",
        gpu="[H100, A100]",
        region="us-east",
        synchronous="false",
        volumes='{"data": "/data"}',
        cpu_limit="4.5",
        app_name="123",
    )
    assert config.timeout == 60
    assert config.gpu == ["H100", "A100"]
    assert config.region == "us-east"
    assert config.is_synchronous is False
    assert config.volumes == {"data": "/data"}
    assert config.cpu_limit == 4.5
    assert config.app_name == "123"


def test_a_duration_of_zenmls_command_line() -> None:
    config = ModalOrchestratorConfig(timeout="1h30m")
    assert component_defaults(config).settings == {"timeout": 5400}


@pytest.mark.parametrize("name", ["token_id", "token_secret"])
def test_half_a_token(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ModalOrchestratorConfig(**{name: SECRET})
    assert SECRET not in str(caught.value)
    _, problem = validation_message(caught.value)
    assert f"'{name}' is set without" in problem
    assert "both or neither" in problem
    assert SECRET not in problem


def test_a_token_is_never_shown() -> None:
    config = ModalOrchestratorConfig(token_id="ak-hidden", token_secret=SECRET)
    assert (config.token_id, config.token_secret) == ("ak-hidden", SECRET)
    for text in (repr(config), str(config)):
        assert SECRET not in text
        assert "ak-hidden" not in text


def test_a_token_in_the_wrong_place_is_not_repeated() -> None:
    from modalrun.settings import ModalOrchestratorSettings

    with pytest.raises(ValidationError) as caught:
        ModalOrchestratorSettings.model_validate({"token_secret": SECRET})
    assert SECRET not in str(caught.value)


def test_secret_references_are_kept() -> None:
    config = ModalOrchestratorConfig(token_id="{{modal.id}}", token_secret="{{modal.secret}}")
    assert config.model_dump(exclude_unset=True) == {
        "token_id": "{{modal.id}}",
        "token_secret": "{{modal.secret}}",
    }
