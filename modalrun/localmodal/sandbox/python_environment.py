"""Make virtual environments by the recipes of images, with uv (`--isolated-python`).

A layer's `pip install` lines are executed, no matter by which installer. Its other `RUN` lines are
not: they are meant for another machine's root. A warning and the build log name them.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modalrun.localmodal.sandbox import rootfs
from modalrun.localmodal.sandbox.recipe import File
from modalrun.util.dockerfile import DROPPED, instructions, parsed

_VERSION = re.compile(r"FROM\s+\S*python:(\d+\.\d+)")


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
        for words, installed in parsed(run):
            if words[0] == "cd" and len(words) > 1:
                cwd = rootfs.inside(root, words[1])
            elif installed is None:
                yield f"Not executed on this machine: {shlex.join(words)}"
            else:
                kept = [word for word in installed if word not in DROPPED]
                kept = rootfs.arguments(kept, root)
                async for line in _uv("pip", "install", "--python", python, *kept, cwd=cwd):
                    yield line


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
