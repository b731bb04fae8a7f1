"""Choose an image builder version of Modal's that has the Python of a run's images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modalrun.errors import UsageError
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.sdk_internals import inner
from modalrun.util.modal_catalog import BUILDER_PYTHONS

VARIABLE = "MODAL_IMAGE_BUILDER_VERSION"


@dataclass(frozen=True)
class PinnedBuilder:
    """Hold a builder version that replaces the environment's, and a note that says why."""

    version: str
    note: str


def image_builder(
    connection: Connection, environment: str | None, pythons: Sequence[str]
) -> PinnedBuilder | None:
    """Return the newest builder version that has some Python versions.

    Modal is asked only if there are builder versions without them.

    Returns:
        None if the version that is configured, or that of the environment, has them.

    Raises:
        UsageError: No version has them, or the configured one does not.
        ModalrunError: As for `translated`.
    """
    fitting = [version for version, found in BUILDER_PYTHONS.items() if set(pythons) <= set(found)]
    if len(fitting) == len(BUILDER_PYTHONS):
        return None
    configured = _configured()
    version = configured or _of_environment(connection, environment)
    if version in fitting or version not in BUILDER_PYTHONS:
        # The SDK knows best about one that is newer than our list.
        return None
    wanted = f"Python {', '.join(pythons)}"
    if configured or not fitting:
        builders = f"These have it: {', '.join(fitting)}." if fitting else ""
        raise UsageError(
            f"Modal's image builder {version} has no {wanted}; it has"
            f" {', '.join(BUILDER_PYTHONS[version])}. {builders}".rstrip(),
            effect="Nothing was created.",
            hint=f"Remove {VARIABLE} (or 'image_builder_version' in your Modal profile), or set it"
            " to one of them."
            if configured
            else "Submit with another Python, which the images then have.",
        )
    return PinnedBuilder(
        fitting[-1],
        f"the environment's image builder {version} has no {wanted}: the images are built with"
        f" {fitting[-1]}",
    )


def usual_builder(connection: Connection, environment: str | None) -> str:
    """Return the builder version that is configured, or else that of an environment."""
    return _configured() or _of_environment(connection, environment)


def look_up_environment(connection: Connection, name: str | None) -> str:
    """Look up an environment, None for the workspace's own, and remember its builder version.

    Returns:
        Its name.

    Raises:
        ModalrunError: As for `translated`.
    """
    import modal

    with translated():
        if name:
            environment = modal.Environment.from_name(name, client=connection.client)
        else:
            environment = modal.Environment.from_context(client=connection.client)
        environment.hydrate()
    found = str(environment.name)
    # No public attribute has it (modal 1.6.4).
    connection.builders[found] = str(inner(environment)._settings.image_builder_version)
    return found


def _configured() -> str | None:
    from modal.config import config

    version: str | None = config.get("image_builder_version")
    return version


def _of_environment(connection: Connection, name: str | None) -> str:
    if name not in connection.builders:
        name = look_up_environment(connection, name)
    return connection.builders[name]


@contextlib.contextmanager
def pinned(builder: PinnedBuilder | None) -> Iterator[None]:
    """Have the SDK build images in the block with a builder version; None for the usual one."""
    if builder is None:
        yield
        return
    os.environ[VARIABLE] = builder.version
    try:
        yield
    finally:
        del os.environ[VARIABLE]
