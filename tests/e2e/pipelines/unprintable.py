"""An exception without a text that is raised after the function of a step."""

from typing import Any

from ending_steps import Unprintable
from zenml import pipeline, step
from zenml.config.retry_config import StepRetryConfig
from zenml.materializers.base_materializer import BaseMaterializer


class Thing:
    """It can't be stored."""


class ThingMaterializer(BaseMaterializer):
    """Fails without a text."""

    ASSOCIATED_TYPES = (Thing,)

    def save(self, data: Any) -> None:
        """Fail."""
        raise Unprintable


@step(
    output_materializers=ThingMaterializer,
    retry=StepRetryConfig(max_retries=1, delay=0, backoff=1),
)
def makes() -> Thing:
    """Return what can't be stored."""
    return Thing()


@pipeline(enable_cache=False)
def static() -> None:
    """Fail after a step's function."""
    makes()


@pipeline(enable_cache=False, dynamic=True)
def dynamic() -> None:
    """Fail after a step's function, and so in the pipeline's own."""
    makes()
