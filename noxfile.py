"""The checks of the project: `nox` runs the usual ones, `nox -s NAME` one of them."""

import json
import shutil
from pathlib import Path

import nox
from nox.command import CommandFailed
from packaging.requirements import Requirement

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests-3.11"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
PYTEST = ["pytest", "-n", "4", "--dist", "worksteal"]

# The behaviour that can differ between versions of zenml or modal: both modes of submit, logs,
# status, stop, resume, the flavor, dynamic pipelines, images, volumes, secrets, cut connections.
VERSION_TESTS = [
    "tests/unit",
    "tests/localmodal",
    *(
        f"tests/e2e/test_{name}.py"
        for name in (
            "happy",
            "failures",
            "endings",
            "logs",
            "looking_on",
            "steering",
            "per_step",
            "driver",
            "flavor",
            "images",
            "sandbox_settings",
            "settings_arrive",
            "doctor",
            "cut_connections",
        )
    ),
]


def _bounded() -> list[Requirement]:
    """Return the requirements of the two SDKs."""
    lines = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    return [line for line in map(Requirement, lines) if line.name in {"modal", "zenml"}]


def _version_tests(session: nox.Session) -> None:
    """Run `VERSION_TESTS`, or the files after `--`; other arguments after `--` go to pytest."""
    show = "from importlib.metadata import version; print(version('zenml'), version('modal'))"
    session.run("python", "-c", show)
    files = (
        [] if any(argument.startswith("tests") for argument in session.posargs) else VERSION_TESTS
    )
    session.run(*PYTEST, "--cold-commands", *files, *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after `--` go to pytest."""
    session.install("-e", ".[dev]")
    session.run(*PYTEST, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the unit and local server tests and show the coverage of modalrun."""
    session.install("-e", ".[dev]")
    report = ["--cov=modalrun", "--cov-report=term:skip-covered"]
    session.run(*PYTEST, *report, "tests/unit", "tests/localmodal", *session.posargs)


@nox.session
def exhaustive(session: nox.Session) -> None:
    """Run every test, including the slow variations that the default suite skips."""
    session.install("-e", ".[dev]")
    session.run(*PYTEST, "--cold-commands", "-m", "", *session.posargs)


@nox.session(name="real-server")
def real_server(session: nox.Session) -> None:
    """Run the end-to-end tests, including the slow variations, on a real ZenML server."""
    session.install("-e", ".[dev]")
    files = session.posargs or ["tests/realserver", "tests/e2e"]
    # By file, because tests of one file share global names on the server.
    session.run("pytest", "--zenml-server", "-n", "2", "--dist", "loadfile", "-m", "", *files)


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """Test with the oldest zenml and modal that the project allows, on the oldest Python."""
    lowest = [
        f"{requirement.name}=={bound.version}"
        for requirement in _bounded()
        for bound in requirement.specifier
        if bound.operator == ">="
    ]
    session.install("-e", ".[dev]", *lowest)
    _version_tests(session)


@nox.session(python="3.13")
def newest(session: nox.Session) -> None:
    """Test with the newest zenml and modal that the project allows, on the newest Python."""
    session.install("--upgrade", "-e", ".[dev]", *map(str, _bounded()))
    _version_tests(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and import contracts."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy, strictly."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session(venv_backend="venv")
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it in an empty environment, and run the quickstart with it."""
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder)
    pip = ["python", "-m", "pip"]
    session.run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder / "dist"), ".")
    (built,) = (folder / "dist").iterdir()
    # As a user installs it; nox's own `install` would take the environment of the project.
    session.run(*pip, "install", "--quiet", f"modalrun[examples] @ {built.as_uri()}")
    for name in ("configs", "examples"):
        shutil.copytree(name, folder / "project" / name)
    # A user's first run, on a machine that knows neither ZenML nor modalrun.
    home = {"HOME": str(folder / "home"), "ZENML_CONFIG_PATH": str(folder / "home" / "zenml")}
    session.chdir(folder / "project")
    session.run("modalrun", "submit", "configs/quickstart.yaml", env=home)
    session.run("modalrun", "local", "stop", env=home)


@nox.session
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities of all dependencies; skip where no index is reachable."""
    report = Path(session.create_tmp()) / "audit.json"
    report.unlink(missing_ok=True)
    try:
        session.install("-e", ".[dev]", "pip-audit")
    except CommandFailed:
        session.skip("pip-audit can't be installed: no package index is reachable.")
    command = ["pip-audit", "--skip-editable", "--format=json", f"--output={report}"]
    session.run(*command, success_codes=[0, 1])
    if not report.exists():
        session.skip("No index of vulnerabilities is reachable; nothing was checked.")
    packages = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
    known = [
        f"{package['name']} {package['version']}: {found['id']}"
        for package in packages
        for found in package.get("vulns", ())
    ]
    if known:
        session.error("\n".join(["Known vulnerabilities:", *known]))


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Print the figures of docs/performance.md."""
    session.install("-e", ".[dev]")
    for name in ("startup", "submit", "plan", "local_server", "logs", "status", "usage"):
        session.run("python", f"benchmarks/{name}.py")
    session.run("python", "benchmarks/per_step.py", "--graphs", "chain-4", "--boot", "0")
    session.run("python", "benchmarks/memory.py")
    session.run("python", "benchmarks/peer.py", "--graphs", "chain-4", "--cold")
