"""Run ZenML pipelines on Modal. Importing this package imports neither `modal` nor `zenml`."""

__version__ = "0.1.0"
