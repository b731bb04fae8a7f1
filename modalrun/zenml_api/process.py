"""Prepare this process for ZenML before ZenML is imported."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path

from modalrun.errors import ConnectionLostError, ModalrunError
from modalrun.util import compatibility, garbage_collection, interrupts
from modalrun.util.machine import require_memory
from modalrun.util.reachability import ASK_DOCTOR, connection_problem
from modalrun.zenml_api import config_files
from modalrun.zenml_api.records import stores


@contextlib.contextmanager
def zenml_process(source_root: Path) -> Iterator[None]:
    """Prepare this process to use ZenML for a project, until the context ends.

    Raises:
        ConnectionLostError: There is a ZenML server, and it doesn't answer.
        UsageError: modalrun doesn't work with the version of ZenML or modal that is installed,
            ZenML's configuration is damaged, or ZenML refuses a name.
        MachineError: ZenML's database can't be used.
    """
    compatibility.require()
    require_memory()
    config_files.require_readable()
    folder = config_files.folder()
    with protected_configuration():
        prepare_process(source_root)
        try:
            _create_store(folder)
            if _is_current():
                # ZenML's own check takes 0.2 s.
                os.environ.setdefault(config_files.DISABLE_MIGRATION, "true")
            yield
        except (ModalrunError, OSError):
            raise
        except Exception as error:
            # ZenML's import may turn the exception of a signal into another one.
            interrupts.check()
            from modalrun.zenml_api.errors import store_error

            if (known := store_error(error)) is None:
                raise
            raise known from error


@contextlib.contextmanager
def zenml_session() -> Iterator[None]:
    """Prepare this process to read runs from ZenML, on a server without importing ZenML.

    ZenML is imported, and its store opened, where there is no server, or for what only ZenML's own
    client can do.

    Raises:
        ConnectionLostError, UsageError: As for `zenml_process`.
        AuthenticationError: ZenML's server refuses the credentials.
    """
    folder = config_files.folder()
    with zenml_process(Path.cwd()), zenml_server(folder) as found:
        if not found:
            stores.open_zenml()
        yield


@contextlib.contextmanager
def zenml_server(folder: Path) -> Iterator[bool]:
    """Read and write records by requests to ZenML's server, until the context ends.

    Returns:
        False if ZenML's own client is needed.

    Raises:
        ConnectionLostError, ServerError: As for a request.
    """
    store = None
    if config_files.has_server():
        from modalrun.zenml_api.records.rest_store import RestStore
        from modalrun.zenml_api.rest.session import connect
        from modalrun.zenml_api.rest.settings import Unusual

        with contextlib.suppress(Unusual):
            store = RestStore(connect(folder))
    stores.use(store)
    try:
        yield store is not None
    finally:
        stores.use(None)


def _create_store(folder: Path) -> None:
    """Create ZenML's local store if it is missing or of an older ZenML, one process at a time.

    ZenML itself fails when several processes do it at once.

    Args:
        folder: Where the lock is: the user's own configuration, which all processes share.
    """
    url = config_files.store_url()
    if url and config_files.database() is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".modalrun.lock").open("w") as lock:
        # Shared, and so at once, unless another process creates it.
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _is_current():
            return
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_current():
            return
        with garbage_collection.paused(), redirect_stdout(sys.stderr):
            from zenml.client import Client

            # ZenML warns that the only stack of the new store becomes the active one.
            told = logging.getLogger("zenml.zen_stores.base_zen_store")
            told.addFilter(lambda record: not record.getMessage().startswith("Setting the "))
            # With the default user, project and stack, and the configuration that names them.
            _ = Client().active_stack_model


def _is_current() -> bool:
    """Return whether the local store is that of the installed ZenML.

    The revision of a database that is up to date is the version of ZenML
    (`zen_stores/migrations/versions`, 0.98.0).
    """
    return config_files.database_version() == version("zenml")


def prepare_process(source_root: Path) -> None:
    """Check that ZenML's server answers, and set what ZenML reads from the environment.

    Raises:
        ConnectionLostError: There is a ZenML server, and it doesn't answer.
    """
    require_server()
    os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "WARN")
    os.environ.setdefault("ZENML_LOGGING_COLORS_DISABLED", "true")
    if (source_root / ".zen").is_dir():
        # The active project and stack are those of the repository, whatever the current folder.
        os.environ.setdefault("ZENML_REPOSITORY_PATH", str(source_root))


def require_server() -> None:
    """Check within seconds that the ZenML server answers, if there is one.

    Raises:
        ConnectionLostError: Nothing answers at its address.
    """
    url = config_files.store_url()
    if config_files.has_server() and (problem := connection_problem(url)) is not None:
        raise ConnectionLostError(
            f"The ZenML server at {url} can't be reached: {problem}.",
            effect="Nothing was created.",
            hint=ASK_DOCTOR,
        ) from problem


@contextlib.contextmanager
def protected_configuration() -> Iterator[None]:
    """Let this process use a copy of the user's ZenML configuration if ZenML would change it.

    With `ZENML_STORE_URL` set, ZenML stores that address in `config.yaml` and switches the user's
    own `zenml` command to it (facts: ZenML 0.98.0).
    """
    if not any(name.startswith(config_files.STORE_PREFIX) for name in os.environ):
        yield
        return
    original = config_files.folder()
    with tempfile.TemporaryDirectory(prefix="modalrun-zenml-", ignore_cleanup_errors=True) as copy:
        for name in ("config.yaml", "credentials.yaml"):
            if (original / name).is_file():
                shutil.copy2(original / name, Path(copy) / name)
        os.environ.setdefault(config_files.LOCAL_STORES_PATH, str(original / "local_stores"))
        os.environ[config_files.CONFIG_PATH] = copy
        yield
