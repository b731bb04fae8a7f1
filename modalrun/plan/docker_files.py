"""The files that Docker settings name: requirements files, Dockerfiles."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.plan import requirement_lines


def resolve(name: str, source_root: Path) -> Path:
    """The file or folder that a Docker setting names.

    ZenML reads relative paths from the working folder, which for its users is the source root.
    """
    below = source_root / Path(name).expanduser()
    return below if below.exists() or not Path(name).exists() else Path(name).absolute()


def read_requirements(path: Path) -> tuple[str, ...]:
    """The logical lines of a requirements file, with those of the files that it includes (`-r`).

    Raises:
        UsageError: A file can't be read, includes itself, or names a constraints file (`-c`).
    """
    return tuple(_included(path, ()))


def _included(path: Path, within: tuple[Path, ...]) -> Iterable[str]:
    if path in within:
        raise UsageError(f"The requirements file {path} includes itself.")
    for line in requirement_lines.logical_lines(read(path, "requirements file", "requirements")):
        option, _, value = line.replace("=", " ", 1).partition(" ")
        if option in {"-r", "--requirement"}:
            yield from _included((path.parent / value.strip()).absolute(), (*within, path))
        elif option in {"-c", "--constraint"}:
            raise UsageError(
                f"The requirements file {path} has '{line}': a constraints file doesn't get into"
                " the image.",
                hint="Write the versions into the requirements file.",
            )
        else:
            yield line


def read(path: Path, what: str, setting: str) -> str:
    """The text of a file.

    Args:
        path: The file.
        what: What it is, for the message.
        setting: The Docker setting that names it.

    Raises:
        UsageError: It can't be read, or isn't text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"The {what} {path} can't be read: {why}.",
            hint=f"The Docker setting '{setting}' is read relative to the source root.",
        ) from error


def copies(dockerfile: str) -> Iterable[str]:
    """The instructions of a Dockerfile that copy from the build context."""
    for line in re.sub(r"\\\n\s*", " ", dockerfile).splitlines():
        word, _, rest = line.strip().partition(" ")
        sources = [part for part in rest.split() if not part.startswith("--")]
        copied = word.upper() == "COPY" and "--from=" not in rest
        added = word.upper() == "ADD" and sources and "://" not in sources[0]
        if copied or added:
            yield line.strip()
