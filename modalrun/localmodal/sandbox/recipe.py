"""Read what a sandbox gets of an image from the lines of its Dockerfiles.

Nothing is built: `RUN` is not executed (but see `python_environment`), and a registry image starts
empty. What else is not kept is noted by name.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from modalrun.util.dockerfile import HEREDOC, instructions

_QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.""", re.DOTALL)
_OPTION = re.compile(r"--(\w+)(?:=(\S*))?\s+")
_VARIABLE = re.compile(
    r"\\\$|\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:[-+])((?:[^{}]|\{[^{}]*\})*))?\})"
)
_SYSTEM_FOLDER = re.compile(
    r"/|/(root|tmp|opt|srv|mnt|home|etc|var|run|s?bin|lib)|/usr(/local)?(/(s?bin|lib|share|src))?"
)
"""Folders that an image has before anything is copied into it."""

_ARCHIVE = re.compile(r".*\.(tar|tgz|tbz2?|txz|tar\.\w+)", re.IGNORECASE)
_DOWNLOAD = re.compile(r"https?://|git@|ftp://")
# What the SDK itself copies for builds (`modal/_image.py`, 1.6.4): a Python, and uv.
_OWN_SOURCES = ("/python/.", "ghcr.io/astral-sh/uv:")
_SILENT = {"RUN", "LABEL", "EXPOSE", "MAINTAINER", ""}
_WITHOUT_EFFECT = {
    "USER": "sandboxes have one user, on Modal root",
    "VOLUME": "use modal.Volume",
    "HEALTHCHECK": "use modal.Probe",
    "STOPSIGNAL": "Modal kills sandboxes",
    "ONBUILD": "nothing is built",
}


class RecipeError(ValueError):
    """A line with which the build of an image fails."""


@dataclass(frozen=True)
class File:
    """A file for a sandbox. `path` is absolute there; `mode` 0 means the default."""

    path: str
    content: Path
    mode: int = 0


@dataclass
class Recipe:
    """The parts of an image that a sandbox uses.

    Attributes:
        entrypoint: None where the image sets none, like `command`.
        python: The `sys.prefix` of the image's own Python; empty for the server's.
        base: The registry image that it starts from.
        notes: What the last layer asks for and a sandbox does not get.
    """

    env: list[tuple[str, str]] = field(default_factory=list)
    workdir: str = ""
    entrypoint: list[str] | None = None
    command: list[str] | None = None
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    files: list[File] = field(default_factory=list)
    python: str = ""
    base: str = ""
    notes: list[str] = field(default_factory=list)

    def copy(self) -> Recipe:
        """Return another recipe with the same content."""
        return replace(self, env=[*self.env], files=[*self.files])

    def add(
        self,
        commands: Iterable[str],
        context: Sequence[File] = (),
        build_args: Mapping[str, str] | None = None,
    ) -> None:
        """Read a layer on top of what is there.

        Args:
            commands: The lines of its Dockerfile.
            context: The files that `COPY` and `ADD` choose from.
            build_args: The values of `ARG` variables.

        Raises:
            RecipeError: The build of this layer fails.
        """
        self.notes.clear()
        layer = _Layer(self, context, build_args or {})
        for instruction, rest in instructions(commands):
            if read := getattr(layer, f"read_{instruction.lower()}", None):
                read(rest)
            elif instruction not in _SILENT:
                reason = _WITHOUT_EFFECT.get(instruction, "no such instruction is known")
                self.notes.append(f"{instruction} {rest} ({reason})")


@dataclass
class _Layer:
    """What is known only while the lines of a layer are read into a recipe.

    A method `read_...` takes what follows the instruction of this name.
    """

    _recipe: Recipe
    _context: Sequence[File]
    _build_args: Mapping[str, str]
    _arguments: dict[str, str] = field(default_factory=dict)
    _stages: dict[str, Recipe] = field(default_factory=dict)
    _stage: str | None = None
    _has_command: bool = False

    def read_from(self, rest: str) -> None:
        words = [w for w in expand(rest, self._arguments).split() if not w.startswith("--")] or [""]
        if self._stage is not None:
            self._stages[self._stage] = self._recipe.copy()
        if self._stage is not None or words[0] != "base":
            base = self._stages.get(words[0]) or Recipe(base=words[0])
            vars(self._recipe).update(vars(replace(base.copy(), notes=self._recipe.notes)))
        self._stage = words[2] if len(words) > 2 else ""
        self._has_command = False

    def read_arg(self, rest: str) -> None:
        for name, value in _assignments(rest, default=""):
            if name in self._build_args:
                self._arguments[name] = self._build_args[name].replace("$", r"\$")
            else:
                self._arguments[name] = expand(value, self._known(), keep=True)

    def read_env(self, rest: str) -> None:
        known = self._known()
        for name, value in _assignments(rest):
            self._recipe.env.append((name, expand(value, known, keep=True)))

    def _known(self) -> dict[str, str]:
        """Return the values so far, in which only names of other variables are left."""
        return {**self._arguments, **dict(self._recipe.env)}

    def _expand(self, text: str) -> str:
        return expand(text, {name: expand(v, {}) for name, v in self._known().items()})

    def read_workdir(self, rest: str) -> None:
        path = self._expand("".join(_split(rest, separators="")))
        self._recipe.workdir = posixpath.normpath(posixpath.join(self._recipe.workdir or "/", path))

    def read_shell(self, rest: str) -> None:
        self._recipe.shell = _array(rest) or self._recipe.shell

    def read_entrypoint(self, rest: str) -> None:
        self._recipe.entrypoint = self._words(rest)
        if not self._has_command:
            # As in Docker, it also drops the CMD of the base.
            self._recipe.command = None

    def read_cmd(self, rest: str) -> None:
        self._recipe.command, self._has_command = self._words(rest), True

    def _words(self, text: str) -> list[str]:
        """Return the words of an ENTRYPOINT or CMD: a JSON array, else a command for the shell."""
        words = _array(text)
        return words if words is not None else [*self._recipe.shell, text] if text else []

    def read_copy(self, rest: str) -> None:
        self._copy("COPY", rest)

    def read_add(self, rest: str) -> None:
        self._copy("ADD", rest)

    def _copy(self, instruction: str, rest: str) -> None:
        if reason := self._why_not_copied(rest, is_add=instruction == "ADD"):
            self._recipe.notes.append(f"{instruction} {rest} ({reason})")

    def _why_not_copied(self, text: str, *, is_add: bool) -> str | None:
        """Copy files of the context; return why something is not copied. Raises RecipeError."""
        mode = 0
        while found := _OPTION.match(text):
            name, value = found[1], self._expand(found[2] or "")
            text = text[found.end() :]
            if name == "from":
                return None if value.startswith(_OWN_SOURCES) else "nothing is built"
            if name == "chmod" and re.fullmatch("[0-7]{3,4}", value):
                mode = int(value, 8)
            elif name not in {"chown", "link"}:
                return f"--{name} is not known"
        if HEREDOC.search(text):
            return "only files are copied"
        *sources, target = map(self._expand, _array(text) or _split(text) or [""])
        if not sources:
            raise RecipeError(f"COPY and ADD need a source and a target, not: {text}")
        folder = posixpath.normpath(posixpath.join(self._recipe.workdir or "/", target))
        is_folder = len(sources) > 1 or self._is_folder(target, folder)
        for source in sources:
            if is_add and _DOWNLOAD.match(source):
                return "nothing is downloaded"
            chosen = list(_chosen(source, self._context))
            if is_add and any(not below and _ARCHIVE.fullmatch(f.path) for f, below in chosen):
                return "archives are not unpacked"
            if not chosen and source not in _OWN_SOURCES:
                raise RecipeError(f"{source} of COPY or ADD is not in the build context")
            for file, below in chosen:
                inner = below or ([posixpath.basename(file.path)] if is_folder else [])
                path = posixpath.join(folder, *inner)
                self._recipe.files.append(File(path, file.content, mode or file.mode))
        return None

    def _is_folder(self, target: str, folder: str) -> bool:
        """Return whether a file is copied into a target, not to its name."""
        return (
            posixpath.basename(target) in {"", ".", ".."}
            or folder == self._recipe.workdir
            or _SYSTEM_FOLDER.fullmatch(folder) is not None
            or any(file.path.startswith(f"{folder}/") for file in self._recipe.files)
        )


def _chosen(source: str, context: Iterable[File]) -> Iterator[tuple[File, list[str]]]:
    """Yield the files that a source of COPY stands for, and their paths below it."""
    pattern = [part for part in source.split("/") if part not in {"", "."}]
    for file in context:
        parts = file.path.strip("/").split("/")
        if len(parts) >= len(pattern) and all(map(fnmatchcase, parts, pattern)):
            yield file, parts[len(pattern) :]


def expand(text: str, variables: Mapping[str, str], *, keep: bool = False) -> str:
    """Replace `$NAME` and `${NAME:-default}` as Docker does; with `keep`, only known names."""

    def value(found: re.Match[str]) -> str:
        name, kind = found[1] or found[2], found[3]
        if name is None:
            return found[0] if keep else "$"
        if keep and name not in variables:
            return found[0]
        known = variables.get(name, "")
        if kind and (kind == ":+") == bool(known):
            return expand(found[4], variables, keep=keep)
        return "" if kind == ":+" else known

    return _VARIABLE.sub(value, text)


def _array(text: str) -> list[str] | None:
    """Return the strings of a JSON array; None for another text."""
    try:
        words = json.loads(text)
    except ValueError:
        return None
    return words if isinstance(words, list) and all(isinstance(w, str) for w in words) else None


def _split(text: str, separators: str = " \t") -> list[str]:
    """Split and remove quotes; a `$` after a backslash stays so. Raises RecipeError.

    Modal resolves variables in single quotes, too, in which the SDK puts the values of `Image.env`
    (`.env({"PATH": "/root/.local/bin:$PATH"})` in its 13_sandboxes/sandbox_agent.py, 2026-11-29).
    """
    escaped = _QUOTED.sub(lambda m: r"\\\$" if m[0] == r"\$" else m[0], text)
    lexer = shlex.shlex(escaped, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = separators, True, ""
    try:
        return list(lexer)
    except ValueError as error:
        raise RecipeError(f"{error}: {text}") from None


def _assignments(text: str, default: str | None = None) -> list[tuple[str, str]]:
    """Return the pairs of ENV or ARG; without a value they have the default. Raises RecipeError."""
    words = _split(text)
    if default is None and words and "=" not in words[0]:
        # The old form: ENV NAME value with spaces.
        name, *rest = text.split(maxsplit=1)
        return [(name, "".join(_split("".join(rest), separators="")))]
    pairs = (word.partition("=") for word in words if "=" in word or default is not None)
    return [(name, value if equals else default or "") for name, equals, value in pairs]
