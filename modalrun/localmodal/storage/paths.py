"""Locate the files of a local Modal server's state folder."""

from __future__ import annotations

import os
from pathlib import Path

STATE_VARIABLE = "MODALRUN_LOCAL_STATE"


def default_state_dir() -> Path:
    """Return `$MODALRUN_LOCAL_STATE`, or else the user's state folder of platformdirs."""
    if chosen := os.environ.get(STATE_VARIABLE):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_state_dir("modalrun")) / "local"


class StateDir:
    """The files of a state folder. The folder has mode 0700, each file in it 0600.

    Attributes:
        info_file: The address of the running server: written when it is ready, removed at its end.
        identity_file: Token, signing key and last port, so that exported variables stay valid.
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
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info_file = root / "server.json"
        self.identity_file = root / "identity.json"
        self.start_lock = root / "start.lock"
        self.server_lock = root / "server.lock"
        self.server_log = root / "server.log"
        self.database = root / "state.sqlite3"
        self.faults_file = root / "faults.json"
        self.modal_config = root / "modal.toml"
        self.blobs = root / "blobs"
        self.uploads = root / "uploads"
        self.volumes = root / "volumes"

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
