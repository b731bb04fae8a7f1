"""Compute the key of a submission: equal keys mean that nothing known here has changed.

The key covers what is known when the spec is read. Which files go is known only once the pipeline
is compiled: whoever uses an entry compares them. The stack is covered by its name and by what
chooses it; whoever skips the compile must check that it is unchanged in ZenML. Code can also read
what the key does not cover: files that are not in the source tree, the time, the network. No secret
can be found from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import modalrun
from modalrun.spec.run_spec import RunSpec
from modalrun.submit.prepare import deployment_path
from modalrun.zenml_api import config_files

SCHEMA = "1"
"""Another one makes all earlier keys unknown."""

PACKAGES = ("zenml", "modal", "pydantic")

OF_THE_TERMINAL = frozenset(
    {"_", "SHLVL", "PWD", "OLDPWD", "COLUMNS", "LINES", "WINDOWID", "TERM_SESSION_ID", "STY"}
) | {"XDG_SESSION_ID", "XDG_VTNR", "MODALRUN_DEBUG", "ZENML_LOGGING_VERBOSITY"}
OF_TERMINALS = ("SSH_", "TMUX", "VTE_", "GPG_", "DBUS_", "WT_", "ITERM_", "KONSOLE_")
"""Variables, and beginnings of such, that differ between two terminals or with `--debug`."""


def of_spec(spec: RunSpec) -> str:
    """Return the key of what decides, beside the files that go, what a spec is compiled to.

    The spec with its overrides and its deployment file, the source root and the current folder,
    the environment, Python, the installed packages, modalrun itself, and the configurations of
    ZenML (its store, project and stack) and of Modal. Call it before `zenml_process`, which changes
    the environment.
    """
    total = hashlib.sha256()
    for part in _parts(spec):
        total.update(f"{len(part)}:".encode() + part)
    return total.hexdigest()


def _parts(spec: RunSpec) -> Iterator[bytes]:
    yield SCHEMA.encode()
    plain = [
        [spec.pipeline, spec.stack, spec.target, str(spec.source_root), spec.deployment],
        [str(spec.source.path), spec.source.data, spec.command_line.data, spec.rerun],
        [sys.executable, sys.version, *(version(name) for name in PACKAGES)],
        sorted(_environment()),
    ]
    # A spec may hold dates; a key of a mapping may be a number.
    yield json.dumps(plain, default=repr).encode("utf-8", "surrogateescape")
    if (path := deployment_path(spec)) is not None:
        yield _content(path)
    yield _content(config_files.folder() / "config.yaml")
    yield _content(spec.source_root / ".zen" / "config.yaml")
    yield _content(Path(os.environ.get("MODAL_CONFIG_PATH") or Path.home() / ".modal.toml"))
    with contextlib.suppress(OSError):
        yield os.fsencode(Path.cwd())
    for folder in map(Path, sys.path):
        if folder.name.endswith("-packages"):
            # An installation changes its time.
            yield _stamp(folder)
    for path in sorted(Path(modalrun.__file__).parent.rglob("*.py")):
        yield _stamp(path)


def _environment() -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if name not in OF_THE_TERMINAL and not name.startswith(OF_TERMINALS):
            yield name, value


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError):
        return b""


def _stamp(path: Path) -> bytes:
    try:
        found = path.stat()
    except OSError:
        return b""
    return f"{path} {found.st_mtime_ns} {found.st_size}".encode("utf-8", "surrogateescape")
