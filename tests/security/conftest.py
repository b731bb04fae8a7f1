"""Fixtures of the security tests (those of the local Modal server), and how hypothesis runs."""

from hypothesis import settings

from tests.localmodal.conftest import connect, sdk, start, state

__all__ = ["connect", "sdk", "start", "state"]

# The machine may be busy; what must take linear time is measured by `growth`.
settings.register_profile("security", deadline=None)
settings.load_profile("security")
