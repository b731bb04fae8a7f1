"""A dynamic pipeline whose function, or a step of it, raises in all kinds of ways."""

from zenml import pipeline, step


@step
def fails() -> None:
    """Fail."""
    raise ValueError("the step")


@pipeline(dynamic=True, enable_cache=False)
def function(way: str = "raises") -> None:
    """Raise."""
    if way == "raises":
        raise KeyError("function")
    if way == "calls":
        fails()
    if way == "isolated":
        fails.with_options(runtime="isolated")()
    if way == "loads":
        fails.submit().load()
    if way == "settles":
        fails.submit()
    if way == "translates":
        try:
            fails()
        except ValueError as error:
            raise RuntimeError("translated") from error
