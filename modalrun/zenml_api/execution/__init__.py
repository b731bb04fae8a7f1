"""Run steps inside a sandbox, with ZenML's own step launcher."""
