"""What holds for all unit tests."""

import pytest
from hypothesis import settings

# No deadlines: the first example imports what it tests, and machines are shared.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's or CI's environment changes how things look."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "MODALRUN_DEBUG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
