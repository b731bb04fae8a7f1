"""Fixtures of the security tests: those of the local Modal server."""

from tests.localmodal.conftest import connect, sdk, start, state

__all__ = ["connect", "sdk", "start", "state"]
