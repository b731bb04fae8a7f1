"""Check everything that a run needs before it is submitted."""
