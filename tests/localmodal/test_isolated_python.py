"""Sandboxes of `modalrun local start --isolated-python` run the Python of their image."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modal
import pytest

from modalrun.localmodal import launcher
from modalrun.localmodal.server_info import ServerInfo

from .support import Sdk

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
LOOK = "import sys, probe; print(sys.prefix, probe.VALUE)"
HAS_MODAL = "import importlib.util; print(importlib.util.find_spec('modal'))"


@pytest.fixture
def isolated(state: Path, connect: Callable[[ServerInfo], Sdk]) -> Sdk:
    return connect(launcher.ensure_running(state, isolated_python=True))


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with two versions of a package, so that nothing is downloaded."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for version in ("1.0", "2.0"):
        about = f"probe-{version}.dist-info"
        with zipfile.ZipFile(folder / f"probe-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("probe.py", f"VALUE = 'probe {version}'\n")
            metadata = f"Metadata-Version: 2.1\nName: probe\nVersion: {version}\n"
            wheel.writestr(f"{about}/METADATA", metadata)
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    return folder


def base() -> modal.Image:
    return modal.Image.from_registry(f"python:{VERSION}-slim")


def output(sdk: Sdk, *command: str, **options: Any) -> str:
    sandbox = sdk.create(*command, **options)
    sandbox.wait()
    return str(sandbox.stdout.read() + sandbox.stderr.read()).strip()


def test_each_image_has_its_own_packages(isolated: Sdk, wheels: Path, tmp_path: Path) -> None:
    offline = {"find_links": str(wheels), "extra_options": "--no-index"}
    first = base().uv_pip_install("probe==1.0", **offline)
    second = first.env({"A": "b"}).pip_install("probe==2.0", **offline)
    file = tmp_path / "needs.txt"
    file.write_text(f"--no-index\n--find-links {wheels}\nprobe==1.0\n")
    listed = base().pip_install_from_requirements(str(file))
    copied = base().add_local_dir(wheels, "/some/wheels", copy=True)
    copied = copied.run_commands("cd /some && pip install wheels/probe-2.0-py3-none-any.whl")

    found = {
        name: output(isolated, "python3", "-c", LOOK, image=image).split(" ", 1)
        for name, image in {"1": first, "2": second, "3": listed, "4": copied}.items()
    }

    pythons = isolated.info.state_dir / "pythons"
    assert {Path(prefix).parent for prefix, _ in found.values()} == {pythons}
    assert [found[name][1] for name in "1234"] == [
        "probe 1.0",
        "probe 2.0",
        "probe 1.0",
        "probe 2.0",
    ]
    # The Python of the server has modal; these do not.
    assert output(isolated, "python", "-c", HAS_MODAL, image=first) == "None"
    status = launcher.status(isolated.info.state_dir)
    assert status is not None
    assert status["isolated_python"] is True


def test_a_package_that_is_missing_fails_the_build(isolated: Sdk, wheels: Path) -> None:
    offline = {"find_links": str(wheels), "extra_options": "--no-index"}
    image = base().uv_pip_install("probe==3.0", **offline)
    with pytest.raises(modal.exception.ImageBuildError) as caught:
        image.build(isolated.app())
    log = modal.Image.from_id(caught.value.image_id, client=isolated.client).logs.tail(entries=20)
    assert "probe==3.0" in "".join(entry.message for entry in log)
    # Nothing half made is left, and what is mended is built.
    folder = isolated.info.state_dir / "pythons" / str(caught.value.image_id)
    assert not folder.exists()
    assert "ModuleNotFoundError" in output(isolated, "python3", "-c", LOOK, image=base())


def test_other_commands_are_named_and_not_executed(isolated: Sdk, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    image = base().run_commands(f"touch {marker}")
    image.build(isolated.app())
    assert output(isolated, "true", image=image) == ""
    assert not marker.exists()


@pytest.mark.parametrize(
    "line",
    [
        "pip install -q PROBE; pip install PROBE",
        "false || pip3 install PROBE > /tmp/log 2>&1",
        "if true; then /.uv/uv pip install --python $(command -v python) PROBE; fi",
        '["python3", "-m", "pip", "install", "PROBE"]',
        "--mount=type=cache,target=/cache QUIET=1 pip install \\\n  PROBE",
    ],
)
def test_an_install_is_found_in_any_line(isolated: Sdk, wheels: Path, line: str) -> None:
    wheel = str(wheels / "probe-1.0-py3-none-any.whl")
    image = base().dockerfile_commands(f"RUN {line.replace('PROBE', wheel)}")
    assert output(isolated, "python3", "-c", LOOK, image=image).endswith("probe 1.0")


def test_a_line_that_can_not_be_read_is_not_executed(isolated: Sdk) -> None:
    image = base().dockerfile_commands("RUN echo 'x", "RUN pip install $WHAT", "RUN []")
    image.build(isolated.app())
    assert output(isolated, "true", image=image) == ""


def test_an_environment_is_made_once(isolated: Sdk, wheels: Path) -> None:
    offline = {"find_links": str(wheels), "extra_options": "--no-index"}

    def prefix() -> Path:
        image = base().uv_pip_install("probe==1.0", **offline)
        return Path(output(isolated, "python3", "-c", LOOK, image=image).split()[0])

    made = prefix()
    before = (made / "modalrun-complete").stat().st_mtime_ns
    assert prefix() == made
    assert (made / "modalrun-complete").stat().st_mtime_ns == before
