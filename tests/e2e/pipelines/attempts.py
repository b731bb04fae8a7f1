"""Steps that need another try, and hooks, all of which write down that they were called."""

from pathlib import Path

from zenml import get_step_context, pipeline, step
from zenml.config.retry_config import StepRetryConfig


def note(diary: str, text: str) -> None:
    """Add a line to the diary."""
    with Path(diary).open("a") as file:
        file.write(f"{text}\n")


def diary_of_step() -> str:
    """The diary that the step around the hook was given."""
    return str(get_step_context().step_run.config.parameters["diary"])


def on_step_failure(error: BaseException) -> None:
    """Hook of steps."""
    note(diary_of_step(), f"hook: {get_step_context().step_run.name} failed with {error}")


def on_step_success() -> None:
    """Hook of steps."""
    note(diary_of_step(), f"hook: {get_step_context().step_run.name} succeeded")


def on_init(diary: str) -> None:
    """Hook of the pipeline."""
    note(diary, "init")
    Path(diary).with_suffix(".for-cleanup").write_text(diary)


def on_cleanup() -> None:
    """Hook of the pipeline."""
    from zenml import get_step_context  # noqa: F401  (a hook may import ZenML)

    print("cleanup was called")


@step(retry=StepRetryConfig(max_retries=2, delay=0, backoff=1))
def flaky(diary: str) -> int:
    """Fail the first time."""
    lines = Path(diary).read_text().splitlines()
    note(diary, "flaky runs")
    if "flaky runs" not in lines:
        raise RuntimeError("not the first time")
    return 2


@step(on_success=on_step_success, on_failure=on_step_failure)
def good(diary: str, number: int) -> int:
    """Succeed."""
    note(diary, f"good runs with {number}")
    return number


@step(
    on_success=on_step_success,
    on_failure=on_step_failure,
    retry=StepRetryConfig(max_retries=1, delay=0, backoff=1),
)
def bad(diary: str, number: int) -> None:
    """Fail, twice."""
    note(diary, f"bad runs with {number}")
    raise RuntimeError("bad luck")


@pipeline(enable_cache=False, on_cleanup=on_cleanup)
def attempts(diary: str) -> None:
    """A step that succeeds on its second try, one that succeeds, one that never does."""
    number = good(diary, flaky(diary))
    bad(diary, number)
