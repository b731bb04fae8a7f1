"""Mount files into sandboxes: the source tree, modalrun itself, the manifest of a driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import modalrun
from modalrun.run.contract import CODE_FOLDER, PACKAGE_FILE
from modalrun.run.manifest import MANIFEST_FILE
from modalrun.util.package_archive import write_archive

if TYPE_CHECKING:
    import modal


def is_mounted() -> bool:
    """Return whether this process runs the modalrun that `with_files` has mounted."""
    # On the local Modal server the root of a sandbox is a folder.
    return str(_importable()).endswith(PACKAGE_FILE)


def with_files(
    image: modal.Image, source: Path, *, package: bool, manifest: Path | None = None
) -> modal.Image:
    """Mount the source tree at `CODE_FOLDER`. A mount is no layer, so nothing is rebuilt.

    With `package`, modalrun itself is mounted too, for which a file is written beside the source
    tree; a driver also needs the `manifest` file.
    """
    if manifest is not None:
        image = image.add_local_file(manifest, MANIFEST_FILE)
    if package:
        image = image.add_local_file(_package(source.parent), PACKAGE_FILE)
    # A driver adds its own folder, in which Python may have left what it compiled.
    return image.add_local_dir(source, CODE_FOLDER, ignore=["**/__pycache__"])


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
