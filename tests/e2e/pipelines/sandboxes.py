"""Pipelines whose code says everything that can be said about sandboxes."""

import os
from pathlib import Path

from zenml import pipeline, step
from zenml.config import ResourceSettings

from modalrun.settings import ModalOrchestratorSettings


@step
def look() -> None:
    """Tell what the sandbox got."""
    print(f"secret {len(os.environ.get('TOKEN_FOR_TESTS', ''))} characters")


@pipeline(enable_cache=False)
def plain() -> None:
    """Say nothing."""
    look()


@pipeline(
    enable_cache=False,
    settings={
        "orchestrator": ModalOrchestratorSettings(
            gpu=["A100-80GB", "H100"],
            region=["us-east", "eu"],
            cloud="gcp",
            modal_environment="staging",
            workspace="some-team",
            app_name="my-app",
            mode="pipeline",
            max_parallelism=2,
            timeout=700,
            synchronous=True,
            secrets=["for-tests"],
            volumes={"data": "/data"},
            cpu_limit=4.0,
            memory_limit="4GiB",
        ),
        "resources": ResourceSettings(cpu_count=1.5, memory="3GiB", gpu_count=2),
    },
)
def decorated() -> None:
    """Say everything."""
    look()


@step(settings={"step_operator.modal": {"gpu": "T4"}, "resources": {"memory": "1GiB"}})
def of_zenmls_operator() -> None:
    """Say something to ZenML's own step operator."""


@pipeline(enable_cache=False, settings={"orchestrator.modal": {"region": "eu", "timeout": 300}})
def of_zenmls_flavor() -> None:
    """Say something to ZenML's own Modal orchestrator."""
    of_zenmls_operator()


@step(settings={"resources": {"cpu_count": 2, "memory": "4GB"}})
def preprocess_data() -> None:
    """No GPU needed."""


@step(settings={"orchestrator": {"gpu": "A100"}, "resources": {"gpu_count": 1, "memory": "32GB"}})
def train_model() -> None:
    """Needs the big one."""


@step(settings={"resources": {"gpu_count": 1, "memory": "16GB"}})
def evaluate_model() -> None:
    """The pipeline's type is enough."""


@pipeline(
    enable_cache=False,
    settings={"orchestrator": {"mode": "per_step", "max_parallelism": 2, "gpu": "T4"}},
)
def mixed() -> None:
    """The seed's mixed resources."""
    preprocess_data()
    train_model(after="preprocess_data")
    evaluate_model(after="train_model")


ROOT = Path(__file__).parent
