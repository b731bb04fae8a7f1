"""All tests here run on a real ZenML server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from servers.troubled import Proxy

if TYPE_CHECKING:
    from tests.world import World


@pytest.fixture
def world(server_world: World) -> World:
    """A world on a real ZenML server, with or without `--zenml-server`."""
    return server_world


@pytest.fixture
def proxy(world: World) -> Iterator[Proxy]:
    """The proxy through which every process of the world reaches the server."""
    assert world.servers is not None
    proxy = Proxy(world.servers.url)
    world.environment["ZENML_STORE_URL"] = proxy.url
    yield proxy
    proxy.close()
