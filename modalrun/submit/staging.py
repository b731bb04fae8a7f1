"""Stage the source tree of a run: a copy that goes to its sandboxes, with its hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.run.manifest import MANIFEST_FILE, RunManifest, Source
from modalrun.submit.source_changes import MOST_FILES, compare, hashes_to_store
from modalrun.submit.source_selection import select
from modalrun.submit.source_tree import SourceSelection, SourceTree, refuse_private
from modalrun.util.regular_files import open_inside


def stage(tree: SourceTree, selection: SourceSelection, folder: Path) -> Source:
    """Copy the files of a source tree, so that edits during a submission have no effect.

    Args:
        tree: The files.
        selection: How they were selected.
        folder: Where the copy goes.

    Raises:
        UsageError: They can't go (`SourceTree.check`), or one can't be read.
    """
    tree.check()
    _copy(tree.root, folder, {file.path: file.real for file in tree.files})
    hashes = hash_files(folder)
    stored = hashes_to_store(hashes)
    return Source(tree.root, hash_tree(hashes), stored, selection.dockerignore, selection.include)


def stage_again(source: Source, root: Path, folder: Path) -> tuple[str, ...]:
    """Copy the files that a run was submitted with, which must not have changed.

    Args:
        source: The source tree as it was submitted.
        root: The folder where it is now.
        folder: Where the copy goes.

    Returns:
        The files in `root` that are new and left out, as far as that is known.

    Raises:
        UsageError: The source tree is missing or has changed.
    """
    if not root.is_dir():
        raise UsageError(
            f"The run's source tree {root} is not on this machine.",
            hint="Check out what was submitted, and name its folder with '--source-root'.",
        )
    changed = f"The source tree {root} has changed since the run was submitted"
    mismatch = "The rest of the run would not match the finished steps."
    refuse_private(root)
    selection = SourceSelection(root, source.dockerignore, source.include)
    if not source.files:
        if stage(select(selection), selection, folder).digest == source.digest:
            return ()
        raise UsageError(
            f"{changed}. {mismatch} Which files differ is not known: of more than {MOST_FILES:,}"
            " files only the total hash is stored.",
            hint="Restore the files and remove new ones ('git status' lists them), or check out"
            " what was submitted and name its folder with '--source-root'.",
        )
    _copy(root, folder, _real_files(root, source.files))
    present: list[str] = []
    # New files are only reported, so an error about them must not stop the run.
    with contextlib.suppress(UsageError):
        present = [file.path.as_posix() for file in select(selection).files]
    changes = compare(source.files, hash_files(folder), present)
    if changes.changed or changes.missing:
        raise UsageError(
            f"{changed}: {changes}. {mismatch}",
            hint="Restore the changed and missing files, or check out what was submitted and name"
            " its folder with '--source-root'. New files are no obstacle.",
        )
    return changes.new


def write_manifest(manifest: RunManifest, folder: Path) -> Path:
    """Write a manifest to a folder and return the file."""
    file = folder / Path(MANIFEST_FILE).name
    file.write_text(manifest.to_json(), encoding="utf-8")
    return file


def hash_files(folder: Path) -> dict[str, str]:
    """Hash each file of a staged source tree, by its path, sorted; "+x" marks executables."""
    return {
        path.relative_to(folder).as_posix(): _hash(path)
        for path in sorted(p for p in folder.rglob("*") if p.is_file())
    }


def _hash(path: Path) -> str:
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{content}+x" if path.stat().st_mode & 0o100 else content


def hash_tree(files: Mapping[str, str]) -> str:
    """Hash a whole source tree from the hashes of its files."""
    total = hashlib.sha256()
    for path, text in files.items():
        content, executable, _ = text.partition("+x")
        # A path may hold bytes that are not UTF-8.
        total.update(os.fsencode(f"{path}\0{bool(executable)}\0{content}\n"))
    return total.hexdigest()


def _real_files(root: Path, names: Iterable[str]) -> dict[Path, Path]:
    """Return those of some files that are there, each with its path below the root without links.

    Names that lead out of the root are not there.
    """
    real_root = root.resolve()
    found = {}
    for name in names:
        real = (root / name).resolve()
        inside = real.is_relative_to(real_root) and ".." not in Path(name).parts
        if inside and not Path(name).is_absolute() and real.is_file():
            found[Path(name)] = real.relative_to(real_root)
    return found


def _copy(root: Path, folder: Path, files: Mapping[Path, Path]) -> None:
    """Copy files with their modes and times.

    Args:
        root: The source root.
        folder: Where they go.
        files: The path of each file below both, and that below the root without links.
    """
    folder.mkdir(parents=True, exist_ok=True)
    real_root = root.resolve()
    for path, real in files.items():
        destination = folder / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open_inside(real_root, real) as file, destination.open("wb") as copy:
                shutil.copyfileobj(file, copy)
                found = os.fstat(file.fileno())
            destination.chmod(found.st_mode & 0o777)
            os.utime(destination, ns=(found.st_atime_ns, found.st_mtime_ns))
        except OSError as error:
            raise UsageError(
                f"The file {root / path} can't be copied for the sandbox:"
                f" {error.strerror or error}.",
                hint="If the pipeline doesn't need it, list it in .dockerignore.",
            ) from error
