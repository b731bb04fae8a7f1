"""Locate the files of a local Modal server's state folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

STATE_VARIABLE = "MODALRUN_LOCAL_STATE"


def default_state_dir() -> Path:
    """Return `$MODALRUN_LOCAL_STATE`, or else the user's state folder of platformdirs."""
    if chosen := os.environ.get(STATE_VARIABLE):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_state_dir("modalrun")) / "local"


@dataclass(frozen=True)
class StateDir:
    """The files of one state folder. The folder has mode 0700, each file in it 0600."""

    root: Path

    @property
    def info_file(self) -> Path:
        """The address of the running server: written when it is ready, removed when it ends."""
        return self.root / "server.json"

    @property
    def identity_file(self) -> Path:
        """Token, signing key and last port; exported variables so stay valid after a restart."""
        return self.root / "identity.json"

    @property
    def start_lock(self) -> Path:
        """Held while a command looks for or starts a server, and by a server that ends idle."""
        return self.root / "start.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the server for as long as its process lives; contains its pid."""
        return self.root / "server.lock"

    @property
    def server_log(self) -> Path:
        """The server's own log, without the output of sandboxes."""
        return self.root / "server.log"

    @property
    def database(self) -> Path:
        """Records of apps, images, secrets and sandboxes."""
        return self.root / "state.sqlite3"

    @property
    def faults_file(self) -> Path:
        """The rules of the fault injection (see `faults`)."""
        return self.root / "faults.json"

    @property
    def modal_config(self) -> Path:
        """An empty Modal configuration that hides the user's profiles from clients."""
        return self.root / "modal.toml"

    @property
    def blobs(self) -> Path:
        """Contents of uploaded files, named by their sha256."""
        return self.root / "blobs"

    @property
    def uploads(self) -> Path:
        """Unfinished uploads."""
        return self.root / "uploads"

    @property
    def volumes(self) -> Path:
        """One folder per volume."""
        return self.root / "volumes"

    def logs(self, sandbox_id: str) -> Path:
        """The stored output of a sandbox."""
        return self.root / "logs" / sandbox_id

    def sandbox(self, sandbox_id: str) -> Path:
        """The folder of a running sandbox; its `root` stands for the image's `/`."""
        return self.root / "sandboxes" / sandbox_id

    def create(self) -> None:
        """Create the folders with mode 0700. Raises OSError."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root.chmod(0o700)
        for folder in ("blobs", "uploads", "volumes", "logs", "sandboxes"):
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
