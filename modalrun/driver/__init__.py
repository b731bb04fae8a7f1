"""The processes inside sandboxes: supervisor, pipeline runner, per-step driver, step worker.

Importing this package imports neither `modal` nor `zenml`.
"""
