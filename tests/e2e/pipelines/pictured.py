"""A step that says what its image and its code told it."""

import os

from zenml import pipeline, step


@step
def tell() -> None:
    """Print a word of the code and two of the image."""
    from pictured_code import WORD

    print(WORD, os.environ.get("FROM_THE_IMAGE"), os.environ.get("LATE"))


@pipeline
def pictured() -> None:
    """One step."""
    tell()


@pipeline(dynamic=True)
def isolated() -> None:
    """One step in a sandbox of its own."""
    tell.with_options(runtime="isolated")()
