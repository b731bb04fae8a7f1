"""All tests here run on a real ZenML server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World


@pytest.fixture
def world(server_world: World) -> World:
    """A world on a real ZenML server, with or without `--zenml-server`."""
    return server_world
