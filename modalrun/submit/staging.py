"""Stage the source tree of a run: a copy that goes to its sandboxes, with its hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.run.manifest import MANIFEST_FILE, RunManifest, Source
from modalrun.submit.source_changes import MOST_FILES, compare, hashes_to_store
from modalrun.submit.source_tree import source_files


def stage(
    root: Path,
    folder: Path,
    *,
    dockerignore: str | None = None,
    note: Callable[[str], object] = lambda text: None,
) -> Source:
    """Copy the files of a source tree, so that edits during a submission have no effect.

    Args:
        root: The source root.
        folder: Where the copy goes.
        dockerignore: As for `source_files`.
        note: Gets a sentence for each file that is left out because of its name.

    Raises:
        UsageError: As for `source_files`; or there is no file, or one can't be read.
    """
    files = [path for path in source_files(root, dockerignore=dockerignore) if _is_utf8(path, note)]
    if not files:
        raise UsageError(
            f"The source root {root} holds no files.",
            hint="Look at 'source_root:', .gitignore and .dockerignore.",
        )
    _copy(root, folder, files)
    hashes = hash_files(folder)
    return Source(root, hash_tree(hashes), hashes_to_store(hashes), dockerignore)


def _is_utf8(path: Path, note: Callable[[str], object]) -> bool:
    """Return whether Modal, whose names are UTF-8, can take a file; note one that it can't."""
    name = os.fsencode(path)
    try:
        name.decode()
    except UnicodeDecodeError:
        text = name.decode("utf-8", "backslashreplace")
        note(f"The file {text} is left out: its name is not UTF-8.")
        return False
    return True


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
    if not source.files:
        if stage(root, folder, dockerignore=source.dockerignore).digest == source.digest:
            return ()
        raise UsageError(
            f"{changed}. {mismatch} Which files differ is not known: of more than {MOST_FILES:,}"
            " files only the total hash is stored.",
            hint="Restore the files and remove new ones ('git status' lists them), or check out"
            " what was submitted and name its folder with '--source-root'.",
        )
    _copy(root, folder, (Path(path) for path in source.files if (root / path).is_file()))
    present: list[str] = []
    # New files are only reported, so an error about them must not stop the run.
    with contextlib.suppress(UsageError):
        files = source_files(root, dockerignore=source.dockerignore, bounded=False)
        present = [path.as_posix() for path in files]
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


def _copy(root: Path, folder: Path, files: Iterable[Path]) -> None:
    """Copy files, whose paths are relative, with their modes and times."""
    folder.mkdir(parents=True, exist_ok=True)
    for relative in files:
        destination = folder / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(root / relative, destination)
        except OSError as error:
            raise UsageError(
                f"The file {root / relative} can't be copied for the sandbox: {error.strerror}.",
                hint="If the pipeline doesn't need it, list it in .dockerignore.",
            ) from error
