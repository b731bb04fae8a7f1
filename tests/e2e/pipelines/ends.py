"""Steps that end in all kinds of ways, beside steps that end well."""

from ending_steps import WAYS, end, fine
from ends_at_import import never
from zenml import pipeline
from zenml.config.retry_config import StepRetryConfig


@pipeline(enable_cache=False)
def ends(ways: list[str], retries: int = 0) -> None:
    """All of the ways (none for all), and the import that ends the process."""
    retry = StepRetryConfig(max_retries=retries, delay=0, backoff=1) if retries else None
    first = ways or list(WAYS)
    for way in first:
        end.with_options(retry=retry)(way, id=way)
    never.with_options(retry=retry)(id="never")
    fine("after", id="after", after=first[0])
    fine("last", id="last")


@pipeline(enable_cache=False)
def one(way: str, retries: int) -> None:
    """One of the ways."""
    retry = StepRetryConfig(max_retries=retries, delay=0, backoff=1) if retries else None
    end.with_options(retry=retry)(way, id=way)
