"""A helper of a step, which fails."""


def clean(name: str) -> int:
    """Look a name up that is not there."""
    return {"a": 1}[name]
