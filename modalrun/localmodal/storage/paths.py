"""Locate the files of a local Modal server's state folder, and refuse other folders."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from modalrun.errors import UsageError
from modalrun.util.paths import user_path

STATE_VARIABLE = "MODALRUN_LOCAL_STATE"

_FOLDERS = ("blobs", "uploads", "volumes", "logs", "sandboxes", "pythons", "certificates")

_MARKER_TEXT = """\
This folder belongs to the local Modal server of modalrun, which deletes old files in it.
To get rid of it: `modalrun local stop`, then delete the folder.
"""


def default_state_dir() -> Path:
    """Return `$MODALRUN_LOCAL_STATE`, or else the user's state folder of platformdirs."""
    if chosen := os.environ.get(STATE_VARIABLE):
        return user_path(chosen, STATE_VARIABLE).absolute()
    import platformdirs

    return Path(platformdirs.user_state_dir("modalrun")) / "local"


class StateDir:
    """The files of a state folder. The folder has mode 0700, each file in it 0600.

    Attributes:
        marker: Says that the folder is a state folder; the first file in it.
        info_file: Address and token of the running server: written when it is ready, removed at
            its end.
        control_socket: The socket of the running server for the launcher.
        start_lock: Held by a command that looks for or starts a server, and by a server that ends
            because it is idle.
        server_lock: Held by the server while its process lives; contains its pid.
        server_log: The server's own log, without the output of sandboxes.
        database: Records of apps, images, secrets and sandboxes.
        faults_file: The rules of the fault injection (see `faults`).
        modal_config: An empty Modal configuration that hides the user's profiles from clients.
        blobs: Contents of uploaded files, named by their sha256.
        uploads: Unfinished uploads.
        volumes: One folder per volume.
        pythons: Virtual environments of images (`--isolated-python`).
        certificates: The authority of encrypted ports, and the bundle for clients.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.marker = root / "modalrun-local-state"
        self.info_file = root / "server.json"
        self.control_socket = root / "control.sock"
        self.start_lock = root / "start.lock"
        self.server_lock = root / "server.lock"
        self.server_log = root / "server.log"
        self.database = root / "state.sqlite3"
        self.faults_file = root / "faults.json"
        self.modal_config = root / "modal.toml"
        self.blobs = root / "blobs"
        self.uploads = root / "uploads"
        self.volumes = root / "volumes"
        self.pythons = root / "pythons"
        self.certificates = root / "certificates"

    def logs(self, sandbox_id: str) -> Path:
        """The stored output of a sandbox."""
        return self.root / "logs" / sandbox_id

    def sandbox(self, sandbox_id: str) -> Path:
        """The folder of a running sandbox; its `root` stands for the image's `/`."""
        return self.root / "sandboxes" / sandbox_id

    def check(self) -> None:
        """Check that the folder is the server's or can become it; one that is missing can.

        Raises:
            UsageError: It is another user's, or serves another purpose.
        """
        try:
            # Both, because who owns a link chooses the folder.
            owners = {self.root.lstat().st_uid, self.root.stat().st_uid}
            mode = self.root.stat().st_mode
            # Before the marker is looked for, which is there before anything else.
            entries = list(os.scandir(self.root)) if owners == {os.geteuid()} else []
        except FileNotFoundError:
            return
        except OSError as error:
            raise self.unusable(str(error)) from error
        names = {entry.name for entry in entries}
        folder, home = self.root.resolve(), user_path("~", "The state folder").resolve()
        if owners != {os.geteuid()}:
            raise self.unusable(f"{self.root} belongs to another user.")
        if folder in (home, *home.parents):
            raise self.unusable(f"{self.root} is your home folder, or contains it.")
        if names - {self.faults_file.name} and not self.marker.is_file():
            raise self.unusable(
                f"{self.root} holds other files, and no {self.marker.name} that marks a state"
                " folder."
            )
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise self.unusable(
                f"other users can write to {self.root}.", f"Run: chmod 700 {self.root}"
            )
        for entry in entries:
            if problem := self._problem(entry):
                hint = "Remove it, or choose a new folder"
                raise self.unusable(f"{entry.path} is {problem}.", hint)

    def _problem(self, entry: os.DirEntry[str]) -> str | None:
        """Return what an entry is that it must not be. To open a named pipe would block."""
        if entry.is_symlink():
            return "a link"
        try:
            mode = entry.stat().st_mode
        except FileNotFoundError:
            # A temporary file of another command.
            return None
        if entry.name == self.control_socket.name:
            return None if stat.S_ISSOCK(mode) else "no socket"
        if entry.name in _FOLDERS:
            return None if stat.S_ISDIR(mode) else "no folder"
        return None if stat.S_ISREG(mode) else "no regular file"

    def unusable(self, reason: str, hint: str = "") -> UsageError:
        """Return the error for a folder that cannot be used."""
        return UsageError(
            f"The state folder of the local Modal server cannot be used: {reason}",
            hint=hint
            or f"Choose a new or an empty folder of yours with --state-dir or {STATE_VARIABLE}.",
        )

    def create(self) -> None:
        """Create the folder, or mark an empty one, with mode 0700. Raises OSError, UsageError."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.check()
        self.root.chmod(0o700)
        if not self.marker.exists():
            # Not `write_private`, whose temporary file would be there first.
            self.marker.touch(mode=0o600)
            self.marker.write_text(_MARKER_TEXT, encoding="utf-8")
        for folder in _FOLDERS:
            (self.root / folder).mkdir(exist_ok=True, mode=0o700)
        if not self.modal_config.exists():
            self.modal_config.touch(mode=0o600)


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; the new one has mode 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
