"""A pipeline with settings in its code."""

import hashlib
import os

from zenml import pipeline, step
from zenml.config import ResourceSettings


@step(settings={"resources": ResourceSettings(memory="3GiB")})
def tell(word: str, times: int = 1) -> None:
    """Tell what arrived."""
    print(f"told {word * times} by {os.environ.get('STEP_VARIABLE')}")
    print(f"secret {hashlib.sha256(os.environ.get('SECRET_WORD', '').encode()).hexdigest()}")


@pipeline(
    enable_cache=False,
    settings={
        "orchestrator": {"cloud": "aws", "region": ["us-east", "us-west"], "timeout": 700},
        "resources": ResourceSettings(cpu_count=1.5),
    },
)
def configured(word: str = "code") -> None:
    """Tell a word."""
    tell(word)
