"""Requests to a ZenML server that is away for longer than ZenML itself waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry
from zenml.client import Client
from zenml.zen_stores.rest_zen_store import RestZenStore

_EVER = 1_000_000
"""More tries than fit into the life of a sandbox."""

LONGEST_PAUSE = 15.0
"""Seconds between two tries, growing up to this."""

_AWAY = (408, 429, 502, 503, 504)
"""What a proxy answers for a server that is starting; ZenML's own choice."""


def outlast_the_server(say: Callable[[str], None]) -> None:
    """Let this process's requests to the ZenML server wait until it is back.

    ZenML gives up after 30 s (`rest_zen_store.py`, property `session`, 0.98.0), and a step whose
    end can't be recorded has then failed although it hasn't. For processes in a sandbox, which
    its timeout ends. With a local store nothing changes.

    Args:
        say: Is told, once for each request, that the server doesn't answer.
    """
    store = Client().zen_store
    if not isinstance(store, RestZenStore):
        return
    adapter = HTTPAdapter(max_retries=patient(say), pool_maxsize=store.config.connection_pool_size)
    # The longest prefix wins: the store's own adapters stay for every other address.
    store.session.mount(f"{store.url}/", adapter)


def patient(say: Callable[[str], None], pause: float = 0.5) -> Retry:
    """The policy: whatever says that the server is away is tried again, with growing pauses.

    Args:
        say: Is told of a request's first failure.
        pause: Seconds before the second new try; the first one comes at once.
    """

    class Telling(Retry):
        def increment(self, *args: Any, **kwargs: Any) -> Any:
            following = super().increment(*args, **kwargs)
            if not self.history:
                last = following.history[-1]
                why = f"status {last.status}" if last.status else type(last.error).__name__
                say(f"The ZenML server doesn't answer ({why}); trying again.")
            return following

    return Telling(
        total=None,
        connect=_EVER,
        status=_EVER,
        # An answer that breaks off, or takes too long, is the request's fault at some point.
        read=8,
        other=3,
        redirect=3,
        # Every request has an idempotency key.
        allowed_methods=None,
        status_forcelist=_AWAY,
        backoff_factor=pause,
        backoff_max=LONGEST_PAUSE,
    )
