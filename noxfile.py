"""Every check of the project: `nox` runs them all, `nox -s tests` one of them."""

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests-3.11"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after `--` go to pytest."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-n", "2", "--dist", "worksteal", *session.posargs)


@nox.session
def exhaustive(session: nox.Session) -> None:
    """Run every test, also the slow variations that the default suite leaves out."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-n", "2", "--dist", "worksteal", "-m", "", *session.posargs)


@nox.session(name="real-server")
def real_server(session: nox.Session) -> None:
    """Run the end-to-end tests, also the slow variations, on a real ZenML server."""
    session.install("-e", ".[dev]")
    wanted = session.posargs or ["tests/realserver", "tests/e2e"]
    # By file: tests of one file use the same names for what the server has only once.
    session.run("pytest", "--zenml-server", "-n", "2", "--dist", "loadfile", "-m", "", *wanted)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    session.install("ruff>=0.8")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy, strictly."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Print the figures that README and CHANGELOG name."""
    session.install("-e", ".[dev]")
    for name in ("startup", "submit", "plan", "local_server", "logs", "status"):
        session.run("python", f"benchmarks/{name}.py")
    session.run("python", "benchmarks/per_step.py", "--graphs", "chain-4", "--boot", "0")
