"""Create the folder and the environment of a sandbox.

`<sandbox>/root` is the image's `/`: a file or working directory `/app` is at `<root>/app`. The
keeper makes it the root of an isolated sandbox (`view`, `namespaces`), with the volumes.

Without isolation it only stands for it. The rest of the machine is visible, and a command argument
that names a path in it is replaced by the real one. The temporary folder is outside, because the
path of a socket has 108 bytes at most: `<root>/tmp` is a link to it.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from modalrun.localmodal.sandbox.recipe import File, Recipe, expand

ROOT_VARIABLE = "MODALRUN_LOCAL_ROOT"
# The `sys.prefix` of a Python that a sandbox uses instead of the server's.
PYTHON_VARIABLE = "MODALRUN_LOCAL_PYTHON"

_LONGEST_BASE = 32
"""Characters of a folder for temporary folders; sockets in them need the rest of their 108."""

_FOLDERS = dict.fromkeys(("", "home", "media", "mnt", "run", "srv", "var"), 0o755)
_FOLDERS |= {"tmp": 0o1777, "var/tmp": 0o1777}
"""What a root has beside the system and the home, with modes."""

_PROGRAMS = "run/bin"
"""Where a sandbox finds `python`, if its Python has another name."""

_PASSED_ON = (
    "LANG",
    "LANGUAGE",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
)


def inside(root: Path, path: str) -> Path:
    """Map a sandbox's absolute path to the real one. ValueError if it leaves the sandbox."""
    relative = posixpath.normpath(path.lstrip("/"))
    if relative.split("/")[0] == "..":
        raise ValueError(f"'{path}' leaves the sandbox")
    return root / relative


def temporary(sandbox_id: str) -> Path:
    """Return the temporary folder of a sandbox: short, and outside of its root."""
    base = Path(tempfile.gettempdir())
    short = Path("/tmp")  # noqa: S108 (an id is random, and creating its folder fails if it exists)
    if len(os.fsencode(base)) > _LONGEST_BASE and os.access(short, os.W_OK):
        base = short
    return base / sandbox_id[:15]


def add_files(root: Path, files: Iterable[File]) -> None:
    """Copy files to their places below a root. Blocking. Raises OSError, ValueError."""
    made: set[Path] = set()
    for file in files:
        target = inside(root, file.path)
        if target.parent not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        target.unlink(missing_ok=True)
        # A copy, not a link: a sandbox that writes to the file must not change the stored one.
        shutil.copyfile(file.content, target)
        target.chmod((file.mode & 0o777) or 0o644)


def build(
    folder: Path,
    files: Iterable[File],
    volumes: Mapping[str, Path],
    workdir: str,
    *,
    prefix: str,
    isolated: bool,
) -> None:
    """Create the folders of a sandbox, with files, and with volumes unless it is isolated.

    Its Python has the `sys.prefix`. Blocking. Raises OSError, ValueError.
    """
    root = folder / "root"
    (root / "root").mkdir(parents=True, mode=0o700)
    if isolated:
        for name, mode in _FOLDERS.items():
            (root / name).mkdir(exist_ok=True)
            (root / name).chmod(mode)
    else:
        own = temporary(folder.name)
        own.mkdir(mode=0o700)
        (root / "tmp").symlink_to(own, target_is_directory=True)
    # The machine's /etc/profile sets PATH anew in a login shell.
    profile = f'PATH="{prefix}/bin:$PATH:/{_PROGRAMS}"\n'
    (root / "root" / ".profile").write_text(profile, encoding="utf-8")
    if not _has_python(prefix):
        (root / _PROGRAMS).mkdir(parents=True)
        (root / _PROGRAMS / "python").symlink_to(sys.executable)
    add_files(root, files)
    for path, volume in volumes.items():
        target = inside(root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        if target.exists():
            # As on Modal, where a container that cannot mount a volume does not start.
            raise ValueError(f'cannot mount volume on non-empty path: "{path}"')
        if not isolated:
            target.symlink_to(volume, target_is_directory=True)
    inside(root, workdir).mkdir(parents=True, exist_ok=True)


def remove(folder: Path) -> None:
    """Delete the folders of a sandbox, including read-only parts; follow no link. Blocking."""
    own = temporary(folder.name)
    with contextlib.suppress(OSError):
        # The server that made it may have had another TMPDIR.
        link = (folder / "root" / "tmp").readlink()
        own = link if link.name == own.name else own
    for tree in (own, folder):
        if tree.is_symlink():
            continue
        shutil.rmtree(tree, ignore_errors=True)
        if tree.exists():
            for parent, names, _ in os.walk(tree):
                for path in (Path(parent, name) for name in names):
                    if not path.is_symlink():
                        with contextlib.suppress(OSError):
                            path.chmod(0o700)
            shutil.rmtree(tree, ignore_errors=True)


def arguments(argv: list[str], root: Path) -> list[str]:
    """Replace arguments that are paths in the sandbox's root by the real paths."""
    changed = []
    for argument in argv:
        real = argument
        if argument.startswith("/") and argument.strip("/"):
            try:
                candidate = inside(root, argument)
                real = str(candidate) if candidate.exists() else argument
            except (OSError, ValueError):
                pass
        changed.append(real)
    return changed


def _has_python(prefix: str) -> bool:
    """Tell whether a Python is called so: that of a system may be `python3` only."""
    return Path(prefix, "bin", "python").exists()


def python_prefix(recipe: Recipe, variables: Mapping[str, str]) -> str:
    """Return the `sys.prefix` of a sandbox's Python."""
    return variables.get(PYTHON_VARIABLE) or recipe.python or sys.prefix


def environment(
    root: Path,
    recipe: Recipe,
    variables: Mapping[str, str],
    sandbox: Mapping[str, str],
    *,
    isolated: bool = False,
) -> dict[str, str]:
    """Build the environment of a sandbox's command, with little of the server's own.

    Args:
        root: The sandbox's root folder.
        recipe: The image's recipe; its variables may refer to others than its own.
        variables: The variables of secrets and `env`; they override those of the image.
        sandbox: The MODAL_ variables that identify the sandbox; they override all others.
        isolated: Whether the root is that of the command.

    Raises:
        ValueError: HOME leaves the sandbox.
    """
    prefix = python_prefix(recipe, variables)
    programs = str(Path(prefix) / "bin")
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    env |= {name: value for name, value in os.environ.items() if name.startswith("LC_")}
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    others = [folder for folder in path if folder not in (programs, str(Path(sys.prefix) / "bin"))]
    if not _has_python(prefix):
        others.append(f"/{_PROGRAMS}" if isolated else str(root / _PROGRAMS))
    env["PATH"] = os.pathsep.join([programs, *others])
    if (Path(prefix) / "pyvenv.cfg").exists():
        env["VIRTUAL_ENV"] = prefix
    env["HOME"] = "/root" if isolated else str(root / "root")
    if not isolated:
        env["TMPDIR"] = os.path.realpath(root / "tmp")
    local = "127.0.0.1,localhost"
    current = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    env["NO_PROXY"] = env["no_proxy"] = f"{current},{local}" if current else local
    # What they say of each other is expanded already.
    env |= {name: expand(value, env) for name, value in recipe.env}
    if env["PATH"].split(os.pathsep)[0] != programs:
        # The image set PATH, but Python is the host's.
        env["PATH"] = os.pathsep.join([programs, env["PATH"]])
    env.update(variables)
    env.update(sandbox)
    if isolated:
        return env
    if "PYTHONPATH" in env:
        folders = env["PYTHONPATH"].split(os.pathsep)
        env["PYTHONPATH"] = os.pathsep.join(arguments(folders, root))
    if not Path(env["HOME"]).is_relative_to(root):
        # Never a home of this machine.
        env["HOME"] = str(inside(root, env["HOME"]))
    env[ROOT_VARIABLE] = str(root)
    return env
