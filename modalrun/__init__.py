"""Run ZenML pipelines on Modal. Importing this package imports neither `modal` nor `zenml`."""

__version__ = "0.1.0"

DOCS = "https://github.com/modalrun/modalrun/blob/main/docs"
"""An installed package has no docs: messages and help name these."""
