"""Repeat requests to a ZenML server that is away for longer than ZenML itself waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry
from zenml.client import Client
from zenml.zen_stores.rest_zen_store import RestZenStore

_UNLIMITED = 1_000_000
"""More attempts than fit into the life of a sandbox."""

LONGEST_PAUSE = 15.0
"""Upper limit of the growing pause between two attempts, in seconds."""

_UNAVAILABLE = (408, 429, 502, 503, 504)
"""What a proxy answers for a server that is starting; ZenML's own choice."""


def wait_for_server(log: Callable[[str], None]) -> None:
    """Let this process's requests to the ZenML server wait until the server is back.

    ZenML gives up after 30 s (`rest_zen_store.py`, property `session`, 0.98.0), and a step whose
    end can't be recorded has failed then. Only for processes in a sandbox, which its timeout ends.
    With a local store nothing changes.

    Args:
        log: Gets a line for each request that has to be repeated.
    """
    store = Client().zen_store
    if not isinstance(store, RestZenStore):
        return
    retry = retry_policy(log)
    adapter = HTTPAdapter(max_retries=retry, pool_maxsize=store.config.connection_pool_size)
    # The longest prefix wins: the store's own adapters stay for every other address.
    store.session.mount(f"{store.url}/", adapter)


def retry_policy(log: Callable[[str], None], pause: float = 0.5) -> Retry:
    """Return the policy that repeats a request while the server is away, with growing pauses.

    Args:
        log: Gets a line at a request's first failure.
        pause: Seconds before the second retry; the first one comes at once.
    """

    class LoggingRetry(Retry):
        def increment(self, *args: Any, **kwargs: Any) -> Any:
            following = super().increment(*args, **kwargs)
            if not self.history:
                last = following.history[-1]
                why = f"status {last.status}" if last.status else type(last.error).__name__
                log(f"The ZenML server doesn't answer ({why}); trying again.")
            return following

    return LoggingRetry(
        total=None,
        connect=_UNLIMITED,
        status=_UNLIMITED,
        # An answer that breaks off or takes too long may be the request's fault.
        read=8,
        other=3,
        redirect=3,
        # Every request has an idempotency key.
        allowed_methods=None,
        status_forcelist=_UNAVAILABLE,
        backoff_factor=pause,
        backoff_max=LONGEST_PAUSE,
    )
