"""Steps that leave something to report: a page, a table, a failure."""

from typing import Annotated

from zenml import pipeline, step
from zenml.config.retry_config import StepRetryConfig
from zenml.types import CSVString, HTMLString

PAGE = "<!doctype html><style>h1 { color: navy }</style><h1>Confusion</h1><script>alert(1)</script>"


@step
def evaluate() -> tuple[Annotated[HTMLString, "page"], Annotated[CSVString, "table"]]:
    """Make a page and a table."""
    return HTMLString(PAGE), CSVString("digit,count\n7,<b>44</b>\n")


@step(retry=StepRetryConfig(max_retries=1, delay=0))
def publish(page: HTMLString, wrong: bool) -> None:
    """Fail as asked."""
    print("about to publish <b>it</b>")
    if wrong:
        raise ValueError("nobody reads <script>alert(1)</script>")


@pipeline(enable_cache=False)
def reported(wrong: bool = True) -> None:
    """Evaluate, then publish."""
    page, _ = evaluate()
    publish(page, wrong)
