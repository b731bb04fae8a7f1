"""All servers together, and the file that says how to reach them."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from servers import mariadb
from servers.process import StartError
from servers.s3 import S3, Access
from servers.zenml_server import Api, Backend, ZenMLServer

FILE = "servers.json"


@dataclass(frozen=True)
class Servers:
    """Where the servers are, and the credentials of those who may do everything there."""

    url: str
    database: str
    """Which database the ZenML server uses, with the reason where it isn't MariaDB."""
    backend: Backend
    s3: Access

    def api(self) -> Api:
        """The ZenML server's API as the user `default`."""
        return Api(self.url, self.backend.password)

    def write(self, folder: Path) -> None:
        """Leave it in a file that only this user can read."""
        draft = folder / f"{FILE}.new"
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(self)))
        draft.rename(folder / FILE)


def read(folder: Path) -> Servers | None:
    """The servers that run below a folder; None where none have started."""
    try:
        found = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return None
    backend, access = Backend(**found.pop("backend")), Access(**found.pop("s3"))
    return Servers(backend=backend, s3=access, **found)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Servers]:
    """Run all servers below a folder while the block lasts."""
    with contextlib.ExitStack() as stack:
        store_url = ""
        try:
            database = mariadb.MariaDB(folder / "mariadb")
            stack.callback(database.stop)
            database.start()
            store_url, named = database.url, f"MariaDB {database.version}"
        except StartError as error:
            named = f"SQLite, because MariaDB can't be had: {error}"
        s3 = S3(folder)
        stack.callback(s3.stop)
        access = s3.start()
        config = folder / "zenml-config"
        backend = Backend(store_url, str(config), secrets.token_hex(32), secrets.token_hex(16))
        server = ZenMLServer(folder / "zenml", backend)
        stack.callback(server.stop)
        server.start()
        yield Servers(server.url, named, backend, access)
