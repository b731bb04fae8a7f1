"""MariaDB from the system's packages, with a data folder, a port and a password of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path

from servers.process import Server, StartError, free_port

USER = "zenml"
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
_ENGINE = ["--innodb-log-file-size=8M"]
_CHEAP = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M", "--skip-log-bin"]


def missing() -> str | None:
    """What MariaDB lacks here, as a sentence; None if it can be tried."""
    for program in ("mariadbd", "mariadb-install-db", "my_print_defaults"):
        if shutil.which(program, path=_PATH) is None:
            return f"there is no {program} here"
    return None


class MariaDB:
    """A MariaDB server below `root` that nobody else uses."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.version = ""
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """What ZenML calls `ZENML_STORE_URL`."""
        return f"mysql://{USER}:{self.password}@127.0.0.1:{self.port}/zenml"

    def start(self) -> None:
        """Make the data folder and start the server.

        Raises:
            StartError: It can't be had; the text says why.
        """
        lack = missing()
        if lack is not None:
            raise StartError(lack)
        self._root.mkdir(parents=True, exist_ok=True)
        data = self._root / "data"
        # It refuses to run as root unless told to.
        user = ["--user=root"] if os.geteuid() == 0 else []
        environment = os.environ | {"PATH": _PATH}
        self._run(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *user,
            *_ENGINE,
        )
        accounts = self._root / "accounts.sql"
        accounts.touch(mode=0o600)
        # `root` has no password in a fresh data folder, and the port is open to every local user.
        accounts.write_text(
            "".join(
                f"{line};\n"
                for line in (
                    f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{self.password}'",
                    f"GRANT ALL ON *.* TO {USER}@'127.0.0.1'",
                    f"SET PASSWORD FOR root@localhost = PASSWORD('{self.password}')",
                )
            )
        )
        program = str(shutil.which("mariadbd", path=_PATH))
        self._server = Server(
            "MariaDB",
            [
                program,
                "--no-defaults",
                *user,
                f"--datadir={data}",
                # Relative to the data folder: a socket's path may have 107 characters at most.
                "--socket=mariadb.sock",
                f"--port={self.port}",
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                f"--init-file={accounts}",
                # As Debian's own configuration and MySQL have it: texts are texts of any language.
                "--character-set-server=utf8mb4",
                "--collation-server=utf8mb4_general_ci",
                *_ENGINE,
                *_CHEAP,
            ],
            self._root / "mariadbd.log",
            environment,
        )
        self._server.start(self._ready, 60)
        accounts.unlink()

    def stop(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.stop()

    def _ready(self) -> bool:
        import pymysql

        try:
            with pymysql.connect(
                host="127.0.0.1", port=self.port, user=USER, password=self.password
            ) as connection:
                # A prefix that lets old clients of replication take it for MySQL 5.5.
                self.version = connection.get_server_info().removeprefix("5.5.5-")
        except pymysql.err.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        found = str(shutil.which(program, path=_PATH))
        done = subprocess.run(
            [found, *arguments],
            env=os.environ | {"PATH": _PATH},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            raise StartError(f"{program} ended with {done.returncode}:\n{done.stdout[-2000:]}")
