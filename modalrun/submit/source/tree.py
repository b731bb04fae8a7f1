"""Describe the files of the source root that go to a sandbox, and what is left out."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.spec.precedence import Origin, Value
from modalrun.util.nearest import nearest_path
from modalrun.util.paths import checked_path
from modalrun.util.text import listing

MAX_BYTES = 500_000_000
"""A larger source root is an error: it holds data, or it is the home folder."""

SET_ROOT = "'source_root:' in a run spec, or 'zenml init' there for a script"
"""How a folder becomes the source root."""


@dataclass(frozen=True)
class SourceSelection:
    """Say which files of which folder a run gets.

    Attributes:
        root: The source root.
        dockerignore: The file to read instead of `.dockerignore`, relative to `root`.
        include: Files and folders below `root` that go although a rule leaves them out. A folder
            takes no credential file along; a file that is named itself goes in any case.
        may_include_credentials: Whether the user named them: what a deployment or a component of
            a shared stack names can't take credential files along.
        added: What the command line of a rerun includes: it goes although the earlier run did not
            get it.
        modules: The modules that a sandbox imports by name. They select no files.
        folders: The folders of this machine that it imports them from.
        scripted: Whether a script runs the pipeline, without a run spec and a command line.
        named: The value that `include` is from, with its origin.
        orchestrator: The name of the stack's orchestrator, for a command.
    """

    root: Path
    dockerignore: str | None = None
    include: tuple[str, ...] = ()
    may_include_credentials: bool = True
    added: tuple[str, ...] = ()
    modules: tuple[str, ...] = field(default=(), compare=False)
    folders: tuple[Path, ...] = field(default=(), compare=False)
    scripted: bool = field(default=False, compare=False)
    named: Value | None = field(default=None, compare=False)
    orchestrator: str = field(default="NAME", compare=False)

    def __post_init__(self) -> None:
        if self.dockerignore is not None:
            checked_path(self.dockerignore, "'dockerignore' in the Docker settings")
        for name in self.include:
            checked_path(name, "'source_include'")

    def to_include(self, paths: Iterable[Path]) -> str:
        """Say which setting takes further paths along, and where it is set."""
        names = list(dict.fromkeys([*self.include, *map(shown, paths)]))
        if self.scripted:
            everywhere = f"for all pipelines of the stack, {self._update_to(names)}"
            return f"{self._set_to(names)}; or, {everywhere}"
        return self._set_to(names)

    def refusal(self, names: Collection[str], problem: str, hint: str) -> UsageError:
        """Make the error for paths of `include`, with where these are set."""
        source = f" ({self.named.source})" if self.named else ""
        if self.named and self.named.origin is Origin.COMPONENT:
            # Another project, or another pipeline, may have set it.
            source = " of the stack's orchestrator"
            kept = [name for name in self.include if name not in names]
            hint += (
                f" For this pipeline alone: {self._set_to(kept)}. For all pipelines of the stack:"
                f" {self._update_to(kept)}."
            )
        return UsageError(
            f"'source_include'{source} names {', '.join(names)}: {problem}", hint=hint
        )

    def _set_to(self, names: list[str]) -> str:
        if self.scripted:
            return f"ModalOrchestratorSettings(source_include={names}) in the script"
        value = f"[{', '.join(names)}]"
        return f"'source_include: {value}' in the run spec, or --set 'source_include={value}'"

    def _update_to(self, names: list[str]) -> str:
        name, value = shlex.quote(self.orchestrator), shlex.quote(json.dumps(names))
        return f"zenml orchestrator update {name} --source_include={value}"


@dataclass(frozen=True)
class SourceFile:
    """Describe a file that goes.

    Attributes:
        path: Relative to the source root.
        real: The same without links: where it is read.
        size: In bytes.
        tracked: Whether Git tracks it.
        credential: What makes it a credential file, or one with environment variables.
    """

    path: Path
    real: Path
    size: int
    tracked: bool
    credential: str | None = None


@dataclass
class SourceTree:
    """Hold the files of a source root that go, and what is left out.

    Attributes:
        selection: Where they are from.
        real_root: The source root without links.
        files: The files, sorted.
        left_out: The rule for each path that is left out.
        credentials: How many credential files are among them.
        ignored_files, ignored_folders: How many of them .gitignore or .dockerignore names.
        missing: What `include` names and is not there.
        leaving: Links that lead out of the source root, with their targets.
        in_git: Whether Git listed the files.
        notes: Remarks for the user.
    """

    selection: SourceSelection
    real_root: Path
    files: list[SourceFile] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)
    credentials: int = 0
    ignored_files: int = 0
    ignored_folders: int = 0
    missing: list[str] = field(default_factory=list)
    leaving: dict[Path, Path] = field(default_factory=dict)
    in_git: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The source root."""
        return self.selection.root

    @property
    def size(self) -> int:
        """The size of all files that go, in bytes."""
        return sum(file.size for file in self.files)

    @property
    def untracked(self) -> int:
        """How many files go that Git does not track; 0 outside of a repository."""
        return sum(not file.tracked for file in self.files) if self.in_git else 0

    def left_out_by(self, path: Path) -> tuple[Path, str] | None:
        """Return what a file that does not go has to be included by, and the rule, if any."""
        out = next((one for one in (path, *path.parents) if one in self.left_out), None)
        if out is None:
            return None
        # The rest of a package is missing, too.
        whole = path.name == "__init__.py" and out != path
        return path.parent if whole else path, self.left_out[out]

    def check(self) -> None:
        """Refuse a source tree that can't go.

        Raises:
            UsageError: What `include` names is missing, a link leads out of it, or it is empty or
                too large.
        """
        if self.missing:
            raise self.selection.refusal(
                self.missing,
                f"there is nothing of that name in {self.root}.",
                self._meant()
                or "'source_include' has files and folders, relative to the source root.",
            )
        if self.leaving:
            links = [f"{shown(link)} -> {shown(target)}" for link, target in self.leaving.items()]
            raise UsageError(
                f"Links in the source root {self.root} lead out of it: {listing(links)}.",
                hint="Copy what the pipeline needs into the source root, or make a folder that"
                f" holds both the source root ({SET_ROOT}); list other links in .dockerignore.",
            )
        if not self.files:
            raise UsageError(
                f"The source root {self.root} holds no files.",
                hint="Look at .gitignore and .dockerignore, or make another folder the source root:"
                f" {SET_ROOT}.",
            )
        if self.size > MAX_BYTES:
            largest = max(self.files, key=lambda file: file.size)
            raise UsageError(
                f"The source root {self.root} holds {self.size / 1e6:,.0f} MB; at most"
                f" {MAX_BYTES / 1e6:,.0f} MB go to a sandbox. The largest file is"
                f" {shown(largest.path)}.",
                hint="List data in .dockerignore, or make the folder with the code the source root:"
                f" {SET_ROOT}.",
            )

    def _meant(self) -> str:
        """Return what the missing names most likely mean; "" where nothing is alike."""
        hints = ["Patterns are not read: name files or folders."] * any(
            "*" in n for n in self.missing
        )
        for name in self.missing:
            if (meant := nearest_path(self.root, Path(os.path.normpath(name)))) is not None:
                hints.append(f"Did you mean '{shown(meant)}'?")
        return " ".join(hints)

    def described(self, where: str = "") -> str:
        """Describe it in a line: "source: 41 files, 1.2 MB from churn/ (3 untracked)".

        Args:
            where: What lists the files that are left out, for the end of the line.
        """
        left_out = {
            "credential file": self.credentials,
            "ignored file": self.ignored_files,
            "ignored folder": self.ignored_folders,
        }
        named = ", ".join(_counted(count, what) for what, count in left_out.items() if count)
        remarks = [f"{self.untracked:,} untracked"] if self.untracked else []
        remarks += [f"left out: {named}", *([where] if where else [])] if named else []
        return (
            f"source: {_counted(len(self.files), 'file')}, {size(self.size)} from"
            f" {_short(self.root)}" + (f" ({'; '.join(remarks)})" if remarks else "")
        )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def shown(path: Path) -> str:
    """Return a path as text of one line, whatever bytes its name has."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size(count: int) -> str:
    """Format a number of bytes: "1.2 MB". A plan must not import Rich, which has the like."""
    for unit, bytes_ in (("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_:
            return f"{count / bytes_:,.1f} {unit}"
    return f"{count} B"


def _short(folder: Path) -> str:
    """Return a folder by its name, if it is the working folder, or below that; else as it is."""
    with contextlib.suppress(OSError, ValueError):
        below = folder.relative_to(Path.cwd())
        return f"{below if below.parts else folder.name}/"
    return f"{folder}/"
