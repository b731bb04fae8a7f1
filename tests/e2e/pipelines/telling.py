"""Dynamic pipelines that fail by a step, and by themselves."""

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
