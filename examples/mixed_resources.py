"""A pipeline whose steps need different machines: a CPU, an A100, and a T4."""

from typing import Annotated

from zenml import pipeline, step
from zenml.config import ResourceSettings

from modalrun.settings import ModalOrchestratorSettings


@step(settings={"resources": ResourceSettings(cpu_count=2, memory="4GB")})
def preprocess_data(count: int = 1000) -> Annotated[list[float], "data"]:
    """Prepare the data. It has resources of its own and no `gpu_count`: a CPU step."""
    data = [(7 * number % 101) / 101 for number in range(count)]
    print(f"prepared {len(data)} values")
    return data


@step(
    settings={
        "orchestrator": ModalOrchestratorSettings(gpu="A100"),
        "resources": ResourceSettings(gpu_count=1, memory="32GB"),
    }
)
def train_model(data: list[float]) -> Annotated[float, "model"]:
    """Fit the mean, on an A100 of its own."""
    model = sum(data) / len(data)
    print(f"trained on {len(data)} values")
    return model


@step(settings={"resources": ResourceSettings(gpu_count=1, memory="16GB")})
def evaluate_model(model: float, data: list[float]) -> Annotated[float, "error"]:
    """Compute the mean squared error, on one GPU of the pipeline's type."""
    error = sum((value - model) ** 2 for value in data) / len(data)
    print(f"the mean squared error is {error:.4f}")
    return error


@pipeline(settings={"orchestrator": ModalOrchestratorSettings(gpu="T4")})
def mixed_resources(count: int = 1000) -> None:
    """Prepare on a CPU, train on an A100, evaluate on a T4."""
    data = preprocess_data(count)
    evaluate_model(train_model(data), data)
