"""Repeat requests while the ZenML server is away or answers with errors of its own.

ZenML repeats a request for 30 s while nothing answers, and never after a status 500
(`rest_zen_store.py`, property `session`, 0.98.0). A step whose end can't be recorded has failed
then.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, TypeVar

import requests
from pydantic import ValidationError
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry
from yaml import YAMLError

from modalrun.run.reporting import log_line
from modalrun.util.backoff import pauses
from modalrun.util.retry import repeated
from modalrun.zenml_api.config_files import WRITING_SECONDS
from modalrun.zenml_api.errors import UNREACHABLE, ServerTrouble, database_errors, translated

PATIENCE = 180.0
"""Seconds for which a request is repeated that the server answers with an error of its own."""

OPENING_PATIENCE = 600.0
"""Seconds for which a sandbox tries to open the store.

Not without limit: a server that Modal can't reach at all would hold a GPU until the timeout.
"""

LONGEST_PAUSE = 15.0
"""Upper limit of the growing pause between two attempts, in seconds."""

DATABASE_PATIENCE = 20.0
"""Seconds for which a record is written again while ZenML's own database can't be written."""

LOCK_PATIENCE = 600.0
"""Seconds for which a sandbox waits until it may write to ZenML's SQLite file.

ZenML waits for 60 s (`sql_zen_store.py:1109`). A hundred steps at once on a busy machine need more.
"""

T = TypeVar("T")

_UNLIMITED = 1_000_000
"""More attempts than fit into the life of a sandbox."""

_UNAVAILABLE = frozenset({408, 429, 502, 503, 504})
"""What a proxy answers for a server that is starting; ZenML's own choice."""

_NOT_IMPLEMENTED = 501

_REPEATED = frozenset({*range(200, 300), HTTPStatus.NOT_FOUND})
"""What a proxy answers with a page of its own for a server that is starting."""

_UNDERSTOOD = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.REQUEST_URI_TOO_LONG})
"""What ZenML's client acts on whoever answers it: it logs in, or asks for fewer steps."""

_READINGS = 18
"""How often a request is sent whose answer can't be read: with the pauses for three minutes."""

_impatient: ContextVar[bool] = ContextVar("_impatient", default=False)


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Fail at once where the server answers a request of this context with an error of its own."""
    before = _impatient.set(True)
    try:
        yield
    finally:
        _impatient.reset(before)


def open_store(*, in_sandbox: bool = False) -> None:
    """Open ZenML's store, and let this process's requests to a server wait out its trouble.

    Args:
        in_sandbox: Wait `OPENING_PATIENCE` for a server that is away, and without limit once the
            store is open; and long for a database that is locked. The sandbox's timeout ends it.
    """
    with translated():
        store: Any = _opened(in_sandbox=in_sandbox)
    if hasattr(store, "session"):
        adapter = patient_adapter(in_sandbox=in_sandbox, size=store.config.connection_pool_size)
        # The longest prefix wins: the store's own adapters stay for every other address.
        store.session.mount(f"{store.url}/", adapter)
    elif in_sandbox and store.engine.dialect.name == "sqlite":
        from sqlalchemy import event

        pragma = f"PRAGMA busy_timeout = {LOCK_PATIENCE * 1000:.0f}"
        event.listen(store.engine, "connect", lambda made, _: made.execute(pragma))
        # The connections until now are as ZenML makes them.
        store.engine.dispose()


def patient_adapter(*, in_sandbox: bool = False, size: int = 10) -> HTTPAdapter:
    """Return an adapter for `requests` that repeats a request while the server has trouble.

    Args:
        in_sandbox: As for `open_store`.
        size: How many connections it keeps.
    """
    return _Adapter(max_retries=retry_policy(log_line, in_sandbox=in_sandbox), pool_maxsize=size)


def _opened(*, in_sandbox: bool) -> object:
    """Return the store; opening it makes the first requests, for which there is no adapter yet."""
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration

    def announce(error: Exception) -> None:
        log_line(f"ZenML's configuration can't be read ({error}); trying again.")

    # Another process may be writing it: each that opens the store does, in place.
    repeated(GlobalConfiguration, (YAMLError, ValidationError), WRITING_SECONDS, announce)
    until = time.monotonic() + (OPENING_PATIENCE if in_sandbox else PATIENCE)
    waits = pauses(longest=LONGEST_PAUSE)
    while True:
        try:
            return Client().zen_store
        except (RuntimeError, requests.RequestException) as error:
            if not _is_trouble(error, in_sandbox=in_sandbox) or time.monotonic() > until:
                raise
            log_line(f"The ZenML server has trouble ({error}); trying again.")
        # Else it would count as open when only its last request has failed.
        GlobalConfiguration()._zen_store = None
        time.sleep(next(waits))


def _is_trouble(error: BaseException, *, in_sandbox: bool) -> bool:
    """Return whether a store can't be opened for a reason that may pass.

    ZenML wraps the cause (`rest_zen_store.py:561`). After a status of 500 it is a RuntimeError.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, (RuntimeError, requests.exceptions.RetryError)):
        return True
    # The submission has reached a ZenML server at this address.
    away = isinstance(error, UNREACHABLE) and not isinstance(error, requests.exceptions.SSLError)
    return in_sandbox and (away or str(error).startswith("Bad response from API"))


def retry_policy(
    log: Callable[[str], None], pause: float = 0.5, *, in_sandbox: bool = True
) -> Retry:
    """Return the policy that repeats a request while the server is in trouble, with growing pauses.

    Args:
        log: Gets a line at a request's first failure.
        pause: Seconds before the second retry; the first one comes at once.
        in_sandbox: See `open_store`.
    """

    class PatientRetry(Retry):
        trouble_since: float | None = None

        def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
            if in_sandbox and status_code in _UNAVAILABLE:
                return True
            if status_code not in _UNAVAILABLE and not _is_server_error(status_code):
                return False
            if _impatient.get() and status_code not in _UNAVAILABLE:
                return False
            since = self.trouble_since
            return since is None or time.monotonic() - since < PATIENCE

        def increment(self, *args: Any, **kwargs: Any) -> Any:
            following = super().increment(*args, **kwargs)
            status = following.history[-1].status
            # A restart may precede the trouble, and takes as long as it takes.
            following.trouble_since = (self.trouble_since or time.monotonic()) if status else None
            if not self.history:
                error = type(following.history[-1].error).__name__
                how = f"answers with status {status}" if status else f"doesn't answer ({error})"
                log(f"The ZenML server {how}; trying again.")
            return following

    return PatientRetry(
        total=None,
        # Outside a sandbox as often as ZenML itself.
        connect=_UNLIMITED if in_sandbox else 5,
        status=_UNLIMITED,
        # An answer that breaks off or takes too long may be the request's fault.
        read=8,
        other=3,
        redirect=3,
        # Every request has an idempotency key.
        allowed_methods=None,
        backoff_factor=pause,
        backoff_max=LONGEST_PAUSE,
        # It may be hours, and urllib3 sleeps through all of it.
        respect_retry_after_header=False,
    )


def while_database_fails(call: Callable[[], T]) -> T:
    """Repeat a call while a local database can't be written: its disk is full, or it is locked.

    Raises:
        sqlalchemy.exc.DBAPIError: It still can't after `DATABASE_PATIENCE` seconds.
    """

    def announce(error: Any) -> None:
        log_line(f"ZenML's database can't be written: {error.orig}; trying again.")

    return repeated(call, database_errors(), DATABASE_PATIENCE, announce)


def _is_server_error(status: int) -> bool:
    """Return whether a status says that the server, or a proxy before it, has failed."""
    return status >= 500 and status != _NOT_IMPLEMENTED


def refusal(response: requests.Response) -> str:
    """Return the text of the exception that an answer of ZenML's server tells of.

    As `exception_from_response` (`zen_server/exceptions.py`, ZenML 0.98.0).
    """
    try:
        answer = response.json()
    except ValueError:
        return response.text
    detail = answer.get("detail") if isinstance(answer, dict) else answer
    if isinstance(detail, list) and detail and isinstance(detail[0], str):
        # The first one is the name of its class.
        return ": ".join(map(str, detail[1:]))
    return detail if isinstance(detail, str) else response.text


class _Adapter(HTTPAdapter):
    """Repeat a request whose answer can't be read, and raise `ServerTrouble` for a last bad one.

    ZenML's client would raise a RuntimeError or a ValueError, or take a proxy's page for the answer
    that a record does not exist.
    """

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        attempt, waits = 1, pauses(longest=LONGEST_PAUSE)
        while True:
            response = super().send(request, *args, **kwargs)
            error: requests.RequestException
            try:
                # Now, while the request can be repeated; `requests` reads it after this adapter.
                _ = response.content
            except requests.RequestException as cut:
                error = cut
            else:
                problem = _problem(request, response)
                if problem is None:
                    return response
                error = ServerTrouble(f"{request.method} {request.path_url} got {problem}")
                if response.status_code not in _REPEATED:
                    raise error
            if attempt == _READINGS:
                raise error
            if attempt == 1:
                log_line(f"The ZenML server's answer can't be read ({error}); trying again.")
            time.sleep(next(waits))
            attempt += 1


def _problem(request: requests.PreparedRequest, response: requests.Response) -> str | None:
    """Return what the server's last answer to a request is, if it is no good one."""
    status = response.status_code
    if _is_server_error(status) or status in _UNAVAILABLE:
        return f"status {status}: {refusal(response)}"
    if response.is_redirect or status in _UNDERSTOOD:
        return None
    # The first request of all shows whether a ZenML server is at the address.
    if _is_zenmls(response) or request.path_url.endswith("/info"):
        return None
    return f"an answer that is not ZenML's, with status {status}: {response.text[:100]!r}"


def _is_zenmls(response: requests.Response) -> bool:
    """Return whether an answer is one of ZenML's API, not of a proxy before it."""
    if response.ok:
        # Not decoded: what is nested too deeply is no trouble of the server's.
        return "json" in response.headers.get("Content-Type", "")
    try:
        answer = response.json()
    except ValueError:
        return False
    return isinstance(answer, list) or (isinstance(answer, dict) and "detail" in answer)
