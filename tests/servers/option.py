"""pytest's side of the servers: the option, the line in the header, the end."""

from __future__ import annotations

import pytest

from servers import mariadb, sharing

_USED = pytest.StashKey["str | None"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this project's tests."""
    parser.addoption(
        "--zenml-server",
        action="store_true",
        help="run the end-to-end tests on a real ZenML server instead of a local store",
    )
    parser.addoption(
        "--servers",
        metavar="FOLDER",
        help="use the servers that `python -m servers FOLDER` runs, instead of starting some",
    )
    parser.addoption(
        "--cold-commands",
        action="store_true",
        help="start every command of modalrun's anew, instead of with ZenML in memory",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give tests on the server more time: the first one waits until the servers are there."""
    for item in items:
        used = {"world", "server_world", "servers"} & set(getattr(item, "fixturenames", ()))
        starts = used and ("realserver" in item.nodeid or config.getoption("--zenml-server"))
        if starts or sharing.PATIENCE != 1:
            own = item.get_closest_marker("timeout")
            seconds = (own.args[0] if own else float(config.getini("timeout"))) * sharing.PATIENCE
            item.add_marker(pytest.mark.timeout(seconds + (sharing.SECONDS if starts else 0)))


def pytest_report_header(config: pytest.Config) -> str:
    """Say which database the real ZenML server will have."""
    lack = mariadb.missing()
    database = "MariaDB" if lack is None else f"SQLite, because {lack} (install MariaDB's server)"
    used = "all end-to-end tests" if config.getoption("--zenml-server") else "tests/realserver"
    return f"ZenML server: database {database}; used by {used}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the servers with the test run; a worker leaves that to the main process."""
    if not hasattr(session.config, "workerinput"):
        session.config.stash[_USED] = sharing.release(session.config)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say which database the ZenML server has had, if there was one."""
    used = config.stash.get(_USED, None)
    if used is not None:
        terminalreporter.section("ZenML server", sep="-")
        terminalreporter.line(f"database: {used}")
