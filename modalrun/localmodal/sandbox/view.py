"""Decide what a sandbox sees of this machine, and where.

Its root is a folder of its own. In it are, at their places and read-only, the system (`_SYSTEM`)
and the Python environment. Nothing else is there: no home, no state folder, no other sandbox. A
folder that a sandbox's own files lie in is not mounted as a whole, but each entry of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHARED_VARIABLE = "MODALRUN_LOCAL_SHARED"
"""Folders of this machine that sandboxes see and may write to, separated as in PATH."""

_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "nix", "sys")
_PRIVATE_PARTS = {"/etc": 6, "/opt": 6, "/sys": 2}
"""Where a root server's sandbox could read what others may not, and how deep that is looked for."""
_NO_MOUNT_POINTS = {"/", *(f"/{name}" for name in _SYSTEM if name not in ("opt", "nix"))}
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "kfd", "dxg", "dri")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PATHS_IN_VARIABLES = ("LD_LIBRARY_PATH",)


@dataclass(frozen=True)
class View:
    """What `namespaces.build` makes.

    Attributes:
        root: The folder that becomes the root.
        mounts: The source, the path in the sandbox, and whether it may write there. Without a
            source the path is an empty folder. One below another comes later.
        links: The path of a symbolic link, and its target.
        devices: Files of devices.
    """

    root: str
    mounts: tuple[tuple[str, str, bool], ...]
    links: tuple[tuple[str, str], ...]
    devices: tuple[str, ...]


def is_systems(path: str) -> bool:
    """Tell whether a sandbox has only the system's own at a path: no volume, and no file."""
    path = os.path.normpath(f"/{path.lstrip('/')}")
    below = any(_is_below(path, folder) for folder in ("/dev", "/proc", "/sys"))
    return below or path in _NO_MOUNT_POINTS


def shared_folders(variables: Mapping[str, str]) -> list[str]:
    """Return the folders that variables share with a sandbox: named ones, and ZenML's store.

    ZenML's variables lead to the local store of the user who runs a pipeline.
    """
    # The second one has the folders of the stack's components (`zenml_api/records/runs.py`).
    names = (SHARED_VARIABLE, "MODALRUN_LOCAL_STACK")
    found = os.pathsep.join(variables.get(name, "") for name in names).split(os.pathsep)
    found += [variables.get(f"ZENML_{name}_PATH", "") for name in ("CONFIG", "LOCAL_STORES")]
    store = urlsplit(variables.get("ZENML_STORE_URL", ""))
    if store.scheme.startswith("sqlite"):
        found.append(str(Path(unquote(store.path[1:])).parent))
    return [
        path for path in found if path.startswith("/") and path.strip("/") and Path(path).is_dir()
    ]


def python_folders(prefix: str) -> list[str]:
    """Return the folders of a Python environment and of the Python that it was made from."""
    found = [prefix]
    try:
        lines = Path(prefix, "pyvenv.cfg").read_text("utf-8").splitlines()
    except OSError:
        return found
    for name, _, value in (line.partition("=") for line in lines):
        if name.strip() == "home":
            # Its `bin`; the one in the environment may be a link to a link.
            program = os.path.realpath(Path(prefix, "bin", "python"))
            found += [str(Path(value.strip()).parent), str(Path(program).parents[1])]
    return found


def _editable_projects(packages: Iterable[str]) -> Iterator[str]:
    """Yield the folders of packages that are installed in place (PEP 610)."""
    for folder in packages:
        for file in Path(folder).glob("*.dist-info/direct_url.json"):
            try:
                origin = json.loads(file.read_text("utf-8"))
                if origin.get("dir_info", {}).get("editable"):
                    yield unquote(urlsplit(origin["url"]).path)
            except (OSError, ValueError, KeyError, AttributeError):  # noqa: PERF203
                continue


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _private(path: str, kept: Collection[str], depth: int) -> Iterator[str]:
    """Yield what this user may read at a path and below it, and others may not."""
    with contextlib.suppress(OSError):
        mode = os.lstat(path).st_mode
        needed = 0o5 if stat.S_ISDIR(mode) else 0o4
        if stat.S_ISLNK(mode) or any(_is_below(path, each) for each in kept):
            return
        if mode & needed != needed and not any(_is_below(each, path) for each in kept):
            if os.access(path, os.R_OK):
                yield path
        elif stat.S_ISDIR(mode) and depth:
            for entry in os.scandir(path):
                yield from _private(entry.path, kept, depth - 1)


@dataclass
class Machine:
    """What every sandbox of a server sees of this machine.

    Attributes:
        home: The user's home folder.
        state: The state folder of the server.
    """

    home: str
    state: str
    _folders: list[str] = field(default_factory=list)
    _shared: list[str] = field(default_factory=list)
    _devices: tuple[str, ...] = ()
    _secrets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        found = [f"/{name}" for name in _SYSTEM if os.path.lexists(f"/{name}")]
        found += [*python_folders(sys.prefix), sys.base_prefix, *sys.path]
        found += _editable_projects(path for path in sys.path if path.endswith("-packages"))
        for name in _PATHS_IN_VARIABLES:
            found += os.environ.get(name, "").split(os.pathsep)
        # A link that leads to where the system's other services keep it.
        found.append(os.path.realpath("/etc/resolv.conf"))
        self._folders = self._allowed(found)
        self._shared = shared_folders({SHARED_VARIABLE: os.environ.get(SHARED_VARIABLE, "")})
        names = [*_DEVICES, *(path.name for path in Path("/dev").glob("nvidia*"))]
        kept = {path for path in found if path and path not in _PRIVATE_PARTS}
        kept |= {os.path.realpath(path) for path in kept}
        for part in set(_PRIVATE_PARTS).intersection(self._folders):
            below = [path for path in kept if _is_below(path, part)]
            self._secrets += tuple(_private(part, below, _PRIVATE_PARTS[part]))
        self._devices = tuple(f"/dev/{n}" for n in names if Path(f"/dev/{n}").exists())

    def _allowed(self, paths: Iterable[str]) -> list[str]:
        """Return the paths that may be seen, without those below another; and their real ones."""
        found = {each for path in paths if path for each in (path, os.path.realpath(path))}
        seen: list[str] = []
        for path in sorted(found, key=lambda path: path.split("/")):
            reveals = _is_below(self.home, path) or _is_below(path, self.state)
            if path.startswith("/") and path != "/" and not reveals and os.path.lexists(path):
                seen += [] if any(_is_below(path, other) for other in seen) else [path]
        return seen

    def view(
        self,
        root: Path,
        own: Iterable[str],
        volumes: Mapping[str, Path],
        read_only: Collection[str],
        *,
        prefix: str,
        variables: Mapping[str, str],
    ) -> View:
        """Return what a sandbox sees.

        Args:
            root: Its root folder, with its files.
            own: The paths of its files and of its working folder.
            volumes: The folders of its volumes, by path.
            read_only: The paths of those that it may not change.
            prefix: The `sys.prefix` of its Python.
            variables: Its environment variables.
        """
        taken = [os.path.normpath(path) for path in (*own, *volumes)]
        mounts: list[tuple[str, str, bool]] = []
        links: list[tuple[str, str]] = []
        shared = [*self._shared, *shared_folders(variables)]
        for path in self._folders:
            if not any(_is_below(path, folder) for folder in shared):
                _expose(path, taken, self._secrets, mounts, links)
        mounts += [(path, path, True) for path in dict.fromkeys(shared)]
        seen = [path for _, path, _ in mounts]
        # A folder that is shared by name is meant.
        emptied = [
            path
            for path in {self.home, self.state}.difference(shared)
            if Path(path).is_dir() and any(_is_below(path, other) for other in seen)
        ]
        mounts += [("", path, True) for path in emptied]
        # Certificates may be those of the server, in the state folder.
        named = [os.environ[name] for name in _CERTIFICATES if os.environ.get(name)]
        certificates = [path for path in named if Path(path).exists()]
        needed = [*python_folders(prefix), *dict.fromkeys(certificates)]
        if prefix != sys.prefix:
            needed += _editable_projects(map(str, Path(prefix).glob("lib/python*/site-packages")))
        for path in self._secrets:
            shown = any(_is_below(path, other) for other in (*taken, *shared, *needed))
            # Where something of its own is below, nothing else has been exposed.
            if not shown and not any(_is_below(own, path) for own in taken):
                if Path(path).is_dir():
                    mounts.append(("", path, True))
                elif Path(path).exists():
                    mounts.append(("/dev/null", path, False))
        for path in needed:
            visible = any(_is_below(path, folder) for folder in self._folders)
            hidden = not visible or any(_is_below(path, secret) for secret in self._secrets)
            hidden = hidden and not any(_is_below(path, folder) for folder in shared)
            if hidden or any(_is_below(path, folder) for folder in emptied):
                mounts.append((os.path.realpath(path), path, False))
        for path, folder in volumes.items():
            # Links in it are refused, but not those that lead to the state folder.
            source = str(folder).replace(self.state, os.path.realpath(self.state), 1)
            mounts.append((source, os.path.normpath(path), path not in read_only))
        mounts.sort(key=lambda mount: mount[1].split("/"))
        return View(str(root), tuple(mounts), tuple(links), self._devices)


def _expose(
    path: str,
    taken: Iterable[str],
    secrets: Collection[str],
    mounts: list[tuple[str, str, bool]],
    links: list[tuple[str, str]],
) -> None:
    """Show a file or folder at a path, but for what the sandbox has there itself."""
    below = [own for own in taken if _is_below(own, path)]
    if path in below or path in secrets:
        return
    if below and Path(path).is_dir():
        for entry in os.scandir(path):
            _expose(entry.path, below, secrets, mounts, links)
    elif Path(path).is_symlink():
        links.append((path, str(Path(path).readlink())))
    else:
        mounts.append((path, path, False))
