"""The pipelines that the run specs in `configs/` name."""
