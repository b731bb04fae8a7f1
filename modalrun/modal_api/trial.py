"""Try what a run needs of Modal, for `modalrun smoke`: with the user's and a driver's credentials.

The functions raise the errors of `modalrun.modal_api.errors.translated`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from modalrun.errors import NotFoundError
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.log_history import History
from modalrun.run.tags import TAG_ROLE, TAG_RUN

SETTLE_SECONDS = 10.0
"""How long a sandbox may take to be listed, and its name to be free again."""


def create_volume(connection: Connection, name: str, environment: str | None) -> None:
    """Create a volume."""
    import modal

    volume = modal.Volume.from_name(name, environment_name=environment, create_if_missing=True)
    with translated():
        volume.hydrate(connection.client)


def remove_volume(connection: Connection, name: str, environment: str | None) -> None:
    """Delete a volume, if there is one of that name."""
    import modal

    with translated():
        modal.Volume.objects.delete(
            name, allow_missing=True, environment_name=environment, client=connection.client
        )


def stop_app(connection: Connection, name: str, environment: str | None) -> None:
    """Stop an app, which ends its sandboxes and frees its name."""
    import modal

    with contextlib.suppress(NotFoundError), translated():
        app = modal.App.lookup(name, environment_name=environment, client=connection.client)
        app.stop(client=connection.client)


def stored_output(connection: Connection, run_id: str, sandbox: str) -> str:
    """Return what Modal's history has of a sandbox's stdout."""
    history = History(connection, run_id, lambda *_: ())
    batches = history.read([sandbox], time.time() - 3600, None)
    text = "".join(c.text for batch in batches for c in batch if c.source == "stdout")
    if error := history.errors.get(sandbox):
        raise error
    return text


def as_driver(
    *, run_id: str, app: str, environment: str | None, image: str
) -> Iterator[dict[str, Any]]:
    """Do in a sandbox what a driver does with its token, and yield what is found.

    Args:
        run_id: The value of the tag that the sandboxes of the test have.
        app, environment: Where a child is created.
        image: Modal's id of its image.
    """
    began = time.monotonic()
    import modal

    yield {"modal_import": time.monotonic() - began}
    token = (os.environ["MODAL_TOKEN_ID"], os.environ["MODAL_TOKEN_SECRET"])
    connection = Connection("modal", credentials=token)
    client, found = connection.client, connection.app(app, environment)
    yield {"driver_app": found.app_id}
    tags = {TAG_RUN: run_id, TAG_ROLE: "step"}

    def create() -> modal.Sandbox | None:
        """Create a child; return None if its name is taken."""
        with contextlib.suppress(modal.exception.AlreadyExistsError), translated():
            made = modal.Image.from_id(image, client=client)
            options: dict[str, Any] = {"name": f"{app}-child", "tags": tags, "timeout": 60}
            return modal.Sandbox.create(
                "sleep", "30", app=found, image=made, client=client, **options
            )
        return None

    def listed() -> bool:
        with translated():
            return any(modal.Sandbox.list(app_id=found.app_id, tags=tags, client=client))

    began = time.monotonic()
    child = create()
    yield {"child": time.monotonic() - began}
    yield {"listed": _seconds_until(listed)}
    yield {"taken": create() is None}
    if child is not None:
        with translated():
            child.terminate(wait=True)
    yield {"free": _seconds_until(lambda: create() is not None) is not None}


def _seconds_until(true: Callable[[], bool]) -> float | None:
    """Return after how many seconds something is true; None if it isn't in time."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < SETTLE_SECONDS:
        if true():
            return waited
        time.sleep(0.2)
    return None
