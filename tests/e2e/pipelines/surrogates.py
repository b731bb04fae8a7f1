"""A step whose exception has a text that no encoding takes."""

from zenml import pipeline, step


@step(enable_cache=False)
def broken() -> None:
    print("about to fail")
    raise ValueError("no name \udc80")


@pipeline
def surrogates() -> None:
    broken()
