"""Make virtual environments by the recipes of images, with uv (`--isolated-python`).

A layer's `pip install` lines are executed, no matter by which installer. Its other `RUN` lines are
not: they are meant for another machine's root. A warning and the build log name them.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modalrun.localmodal.sandbox import rootfs
from modalrun.localmodal.sandbox.recipe import File, instructions

# Which words begin a pip install, whatever the installer.
_INSTALL = re.compile(r"(\S*uv pip|\S*pip[\d.]*|\S*python[\d.]* -m pip) install")
# Words that may stand before a command: of the shell, of RUN, and variables.
_BEFORE = re.compile(r"then|else|do|if|!|\{|--\S+|\w+=.*", re.DOTALL)
# As the SDK has uv find the image's Python (`modal/_image.py`, 1.6.4).
_THIS_PYTHON = "--python $(command -v python)"
_VERSION = re.compile(r"FROM\s+\S*python:(\d+\.\d+)")
# Compiling takes longer than what it saves here.
_DROPPED = frozenset({"--compile-bytecode", "--system"})
_SILENT = _DROPPED | {"--upgrade", "-U", "--quiet", "-q", "--no-cache-dir"}


class InstallError(Exception):
    """An environment could not be made; the log says why."""


@dataclass(frozen=True)
class Layer:
    """The part of an image's layer that its Python environment is made of.

    Attributes:
        id: Modal's id of the image that ends with this layer.
        commands: The lines of its Dockerfile.
        files: The files that it copies into the image.
    """

    id: str
    commands: Sequence[str]
    files: Sequence[File] = field(default=(), repr=False)

    @property
    def runs(self) -> list[str]:
        """The shell commands of its `RUN` lines."""
        return [rest for name, rest in instructions(self.commands) if name == "RUN"]


class PythonEnvironments:
    """The virtual environments of a state folder, one for each image that installs something."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, asyncio.Lock] = {}

    def prefix(self, layers: Sequence[Layer]) -> Path:
        """Return the folder of an image's environment, whether it exists or not."""
        # The id of a layer is a hash of it and of those below.
        return self._folder / _installing(layers)[-1].id

    def is_ready(self, layers: Sequence[Layer]) -> bool:
        """Return whether the environment of an image has been made."""
        return _marker(self.prefix(layers)).exists()

    async def make(self, layers: Sequence[Layer]) -> AsyncIterator[str]:
        """Make the environment of an image, unless it exists; yield the lines of the log.

        Raises:
            InstallError: It could not be made. Nothing of it is left.
        """
        prefix = self.prefix(layers)
        async with self._locks.setdefault(prefix.name, asyncio.Lock()):
            if self.is_ready(layers):
                return
            shutil.rmtree(prefix, ignore_errors=True)
            try:
                version = _version(layers)
                yield f"Making a virtual environment with Python {version}"
                python = version if version != _own_version() else sys.executable
                async for line in _uv("venv", "--python", python, prefix):
                    yield line
                with tempfile.TemporaryDirectory(prefix="modalrun-image-") as root:
                    for layer in layers:
                        await asyncio.to_thread(rootfs.add_files, Path(root), layer.files)
                        async for line in _install(layer, Path(root), prefix / "bin" / "python"):
                            yield line
                _marker(prefix).touch()
            finally:
                if not _marker(prefix).exists():
                    await asyncio.to_thread(shutil.rmtree, prefix, ignore_errors=True)


def _installing(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers that change the Python environment; the first one always does."""
    return [layer for layer in layers if layer is layers[0] or layer.runs]


def _marker(prefix: Path) -> Path:
    return prefix / "modalrun-complete"


def _own_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _version(layers: Sequence[Layer]) -> str:
    """Return the Python version of an image by its `FROM` line, else that of this process."""
    found = _VERSION.match(layers[0].commands[0]) if layers[0].commands else None
    return found.group(1) if found else _own_version()


async def _install(layer: Layer, root: Path, python: Path) -> AsyncIterator[str]:
    for run in layer.runs:
        cwd = root
        for words, installed in _parsed(run):
            if words[0] == "cd" and len(words) > 1:
                cwd = rootfs.inside(root, words[1])
            elif installed is None:
                yield f"Not executed on this machine: {shlex.join(words)}"
            else:
                kept = [word for word in installed if word not in _DROPPED]
                kept = rootfs.arguments(kept, root)
                async for line in _uv("pip", "install", "--python", python, *kept, cwd=cwd):
                    yield line


def not_executed(layer: Layer, *, installs: bool) -> list[str]:
    """Return the `RUN` lines of a layer that have no effect, but for packages that are here.

    Args:
        layer: The layer.
        installs: Whether the image has a Python of its own, for which packages are installed.
    """
    return [
        run
        for run in layer.runs
        for words, installed in _parsed(run)
        if words[0] != "cd" and words != ["apt-get", "update"]
        if installed is None or not (installs or _are_here(installed))
    ]


def _are_here(arguments: Sequence[str]) -> bool:
    """Tell whether this Python has what the arguments of an installer name."""
    from importlib import metadata

    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = [Requirement(word) for word in arguments if word not in _SILENT]
        return all(
            not one.url and one.specifier.contains(metadata.version(one.name), prereleases=True)
            for one in wanted
            if one.marker is None or one.marker.evaluate()
        )
    except (InvalidRequirement, metadata.PackageNotFoundError):
        return False


def _parsed(run: str) -> Iterator[tuple[list[str], list[str] | None]]:
    """Yield the commands of a RUN line, and the arguments of those that install packages."""
    for words in _commands(run):
        found = _INSTALL.match(" ".join(words))
        is_known = found is not None and "$" not in shlex.join(words)
        yield words, words[len(found.group().split()) :] if found and is_known else None


def _commands(run: str) -> Iterator[list[str]]:
    """Split the text of a RUN line into simple commands, without redirections."""
    lexer = shlex.shlex(run.replace(_THIS_PYTHON, ""), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        found = [*json.loads(run), ";"] if run.startswith("[") else [*lexer, ";"]
    except ValueError:
        # Not the text of a command; its build fails on Modal.
        found = [repr(run), ";"]
    words: list[str] = []
    skip = False
    for word in found:
        if set(word) <= set("();&|"):
            if words:
                yield words
            words = []
        elif word in {">", ">>", "<", ">&", "&>"}:
            skip = True
            if words and words[-1].isdigit():
                words.pop()
        elif skip:
            skip = False
        elif words or not _BEFORE.fullmatch(word):
            words.append(word)


async def _uv(*arguments: str | Path, cwd: Path | None = None) -> AsyncIterator[str]:
    """Execute uv; yield the lines of its output. Raises InstallError."""
    from uv import find_uv_bin

    process = await asyncio.create_subprocess_exec(
        find_uv_bin(),
        *arguments,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            yield line.decode("utf-8", "replace").rstrip()
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    if code:
        raise InstallError(f"uv ended with code {code}.")
