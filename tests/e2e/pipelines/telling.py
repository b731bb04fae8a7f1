"""Dynamic pipelines that fail by a step, and by themselves."""

from contextlib import suppress

from zenml import pipeline, step


@step
def fails() -> None:
    """Fail, as an isolated step too."""
    # ZenML makes a KeyError of its text, which quotes that.
    rates = dict[str, int]()
    name = "bad luck"
    print(rates[name])


@pipeline(dynamic=True, enable_cache=False)
def submitting() -> None:
    """Submit a step that fails."""
    fails.with_options(runtime="isolated").submit()


@pipeline(dynamic=True, enable_cache=False)
def raising() -> None:
    """Raise another error after the step's."""
    try:
        fails()
    except KeyError:
        raise RuntimeError("my own") from None


@step
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


@pipeline(dynamic=True, enable_cache=False)
def below() -> None:
    """Be called by another pipeline."""
    double(1)


@pipeline(dynamic=True, enable_cache=False)
def mapping() -> None:
    """Map over something that is no artifact, and go on when that has failed."""
    with suppress(Exception):
        double.map([1, 2]).load()
    below()
