"""A package whose steps fail in every way a step can."""
