"""Mount files into sandboxes: the source tree, modalrun itself, the manifest of a driver."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modalrun
from modalrun.modal_api.errors import translated
from modalrun.modal_api.sdk_internals import keep_loaded
from modalrun.run.contract import CODE_FOLDER, PACKAGE_FILE
from modalrun.run.manifest import MANIFEST_FILE
from modalrun.util import timeline
from modalrun.util.package_archive import write_archive

if TYPE_CHECKING:
    import modal

    from modalrun.modal_api.client import Connection


def is_mounted() -> bool:
    """Return whether this process runs the modalrun that `with_files` has mounted."""
    # On the local Modal server the root of a sandbox is a folder.
    return str(_importable()).endswith(PACKAGE_FILE)


def with_files(image: modal.Image, source: Path, *, package: bool) -> modal.Image:
    """Mount the source tree at `CODE_FOLDER`. A mount is no layer, so nothing is rebuilt.

    With `package`, modalrun itself is mounted too, for which a file is written beside the source
    tree.
    """
    if package:
        image = image.add_local_file(_package(source.parent), PACKAGE_FILE)
    # A driver adds its own folder, in which Python may have left what it compiled.
    return image.add_local_dir(source, CODE_FOLDER, ignore=["**/__pycache__"])


def look_up(connection: Connection, app: modal.App, images: Collection[str]) -> frozenset[str]:
    """Return Modal's ids of those of the built images that Modal has; raise as `translated`."""
    with timeline.phase("look up the images"):
        return frozenset(_load(app, {image: _bare(connection, image) for image in images}))


def mount(connection: Connection, app: modal.App, image: str, source: Path) -> None:
    """Mount in a built image what `run_image` mounts, ahead of it, so that it need not wait.

    Args:
        connection: To Modal; it remembers the image.
        app: Where the run sandbox will be.
        image: Modal's id of the image.
        source: The source tree.

    Raises:
        ModalrunError: As `translated`.
    """
    with timeline.phase("send the source"):
        found = _load(app, {image: run_image(connection, image, source)})
    if image in found:
        keep_loaded(found[image])
        connection.mounted[image, source] = found[image]


def run_image(
    connection: Connection, image: str, source: Path, manifest: Path | None = None
) -> modal.Image:
    """Return a built image with the files of a run sandbox mounted.

    Args:
        connection: To Modal.
        image: Modal's id of the built image.
        source: The source tree.
        manifest: The run manifest, which a driver needs.
    """
    found = connection.mounted.get((image, source))
    if found is None:
        bare = _bare(connection, image)
        found = with_files(bare, source, package=connection.mounts_package)
    # Last: it is not known before the run exists.
    return found if manifest is None else found.add_local_file(manifest, MANIFEST_FILE)


def _bare(connection: Connection, image: str) -> modal.Image:
    import modal

    return modal.Image.from_id(image, client=connection.client)


def _load(app: modal.App, images: Mapping[str, modal.Image]) -> dict[str, modal.Image]:
    """Load images side by side; return those that Modal has."""

    async def load() -> list[Any]:
        loads = [image.build.aio(app) for image in images.values()]
        return await asyncio.gather(*loads, return_exceptions=True)

    with translated():
        ends = asyncio.run(load())
    return {
        name: image
        for (name, image), end in zip(images.items(), ends, strict=True)
        if not isinstance(end, BaseException)
    }


def _importable() -> Path:
    """Return the entry of `sys.path` that modalrun is imported from."""
    return Path(modalrun.__file__).parents[1]


def _package(folder: Path) -> Path:
    """Return the archive of modalrun, which is made in a folder unless this process runs it."""
    if is_mounted():
        return _importable()
    file = folder / Path(PACKAGE_FILE).name
    if not file.exists():
        write_archive(file, PACKAGE_FILE)
    return file
