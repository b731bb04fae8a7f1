"""Stage the source tree of a run: a copy that goes to its sandboxes, with its hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.run.manifest import MANIFEST_FILE, RunManifest
from modalrun.run.source import MOST_FILES, Source
from modalrun.submit.source_changes import compare, hashes_to_store, listing
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
    return Source(
        hash_tree(hashes), hashes_to_store(hashes), os.fsencode(root).decode(errors="replace")
    )


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


def stage_again(
    source: Source, root: Path, folder: Path, *, dockerignore: str | None = None
) -> tuple[str, ...]:
    """Copy the files that a run was submitted with, which must not have changed.

    No path of the record is read or written: of the files that a submission would take now, those
    are copied that the record names.

    Args:
        source: The record of the source tree as it was submitted.
        root: The folder where it is now.
        folder: Where the copy goes.
        dockerignore: As for `source_files`.

    Returns:
        The files in `root` that are new and left out, as far as that is known.

    Raises:
        UsageError: The source tree is missing or has changed.
    """
    where = f"It was submitted from {source.root}. " if source.root not in {"", str(root)} else ""
    hint = (
        f"{where}Run the command in the folder of what was submitted, or name that folder with"
        " '--source-root'."
    )
    if not root.is_dir():
        raise UsageError(f"There is no folder {root} with the run's source tree.", hint=hint)
    changed = f"The source tree {root} has changed since the run was submitted"
    mismatch = "The rest of the run would not match the finished steps."
    if not source.files:
        if stage(root, folder, dockerignore=dockerignore).digest == source.digest:
            return ()
        raise UsageError(
            f"{changed}. {mismatch} Which files differ is not known: of more than {MOST_FILES:,}"
            " files only the total hash is stored.",
            hint=f"Restore the files and remove new ones ('git status' lists them). {hint}",
        )
    files = source_files(root, dockerignore=dockerignore, bounded=False)
    _copy(root, folder, (path for path in files if path.as_posix() in source.files))
    found = hash_files(folder)
    if not found:
        raise UsageError(f"The folder {root} holds none of the run's files.", hint=hint)
    changes = compare(source.files, found, [path.as_posix() for path in files])
    if changes.changed or changes.missing:
        raise UsageError(
            f"{changed}: {changes}. {mismatch}",
            hint="Restore the changed and missing files; a file that .gitignore or .dockerignore"
            f" leaves out is missing, and new files are no obstacle. {hint}",
        )
    return changes.new


def new_files_note(new: Collection[str]) -> str:
    """Return a note on files that a resumed run does not get."""
    return f"note: new files, which the run does not get: {listing(new)}"


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
