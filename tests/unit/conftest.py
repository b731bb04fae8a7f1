"""Fixtures for all unit tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from modalrun.spec.run_spec import RunSpec, load_spec

# No deadlines: the first example imports what it tests, and machines are shared.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's or CI's environment from changing the output."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "MODALRUN_DEBUG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], RunSpec]:
    """Load a run spec from a string."""

    def write_and_load(text: str) -> RunSpec:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return load_spec(path)

    return write_and_load
