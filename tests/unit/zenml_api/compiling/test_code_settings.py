"""Sandbox settings in the code of a pipeline or step."""

import pytest
from zenml.config.base_settings import BaseSettings

from modalrun.errors import UsageError
from modalrun.zenml_api.compiling.code_settings import read_code


@pytest.mark.parametrize("key", ["orchestrator", "orchestrator.modal", "orchestrator:mine"])
def test_each_mistake_has_a_line(key: str) -> None:
    ours = BaseSettings(timout=2, memory="1GB", gpu_wait=0)  # type: ignore[call-arg]
    resources = BaseSettings(cpu_count=0)  # type: ignore[call-arg]
    with pytest.raises(UsageError) as caught:
        read_code({key: ours, "resources": resources}, "step 'train' in code", "mine")
    at = f"step 'train' in code: 'settings.{key}"
    assert caught.value.message.split("\n") == [
        f"{at}.gpu_wait' must be 1 or more, not 0.",
        f"{at}.timout': unknown setting 'timout'. Did you mean 'timeout'?",
        f"{at}.memory': unknown setting 'memory'. 'memory' is 'settings: resources: memory'.",
        "step 'train' in code: 'settings.resources.cpu_count' must be above 0, not 0.",
    ]
