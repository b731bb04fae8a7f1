"""Supported versions, in the package's metadata and in the documentation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from modalrun.errors import UsageError
from modalrun.util import compatibility

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder whose packages are found before the installed ones."""
    monkeypatch.syspath_prepend(str(tmp_path))
    required = ("modal>=1.6.4,<2", "zenml[local]>=0.95,<1", "zenml[server]; extra == 'examples'")
    package(tmp_path, "modalrun", "0.1.0", *required)
    package(tmp_path, "modal", "1.6.4")
    package(tmp_path, "zenml", "0.95.0")
    return tmp_path


def package(folder: Path, name: str, version: str, *requirements: str) -> None:
    """Write the metadata of an installed package."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {one}" for one in requirements]
    for old in folder.glob(f"{name}-*.dist-info"):
        (old / "METADATA").unlink()
        old.rmdir()
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def test_the_bounds_themselves_are_supported(packages: Path) -> None:
    compatibility.require()
    assert compatibility.versions_of("zenml") == ">=0.95,<1"
    assert [finding.state for finding in compatibility.installed()] == ["ok"] * 4
    package(packages, "modal", "1.99.0")
    package(packages, "zenml", "0.99.1")
    compatibility.require()


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("modal", "1.6.3", "Modal SDK 1.6.3 is not supported; >=1.6.4,<2 is."),
        ("modal", "2.0.0", "Modal SDK 2.0.0 is not supported; >=1.6.4,<2 is."),
        ("zenml", "0.94.6", "ZenML 0.94.6 is not supported; >=0.95,<1 is."),
    ],
)
def test_another_version_is_refused(packages: Path, name: str, version: str, message: str) -> None:
    package(packages, name, version)
    with pytest.raises(UsageError) as caught:
        compatibility.require()
    assert caught.value.message == message
    assert f"pip install '{name}>=" in str(caught.value.hint)
    (finding,) = [one for one in compatibility.installed() if one.check == name]
    assert (finding.state, finding.exit_code) == ("problem", 2)


def test_without_metadata_every_version_is_accepted(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(packages)])
    for path in packages.glob("modalrun-*/METADATA"):
        path.unlink()
        path.parent.rmdir()
    package(packages, "zenml", "0.1")
    assert compatibility.versions_of("zenml") == ""
    compatibility.require()


def test_a_command_ends_with_2_before_zenml_is_imported(packages: Path, tmp_path: Path) -> None:
    package(packages, "zenml", "0.94.6")
    spec = tmp_path / "project" / "run.yaml"
    spec.parent.mkdir()
    spec.write_text("pipeline: nowhere.nothing\ntarget: local\n")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "modalrun", "submit", str(spec)],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)]),
            "HOME": str(tmp_path / "home"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2, lines
    assert lines[0] == "Error: ZenML 0.94.6 is not supported; >=0.95,<1 is."
    assert "pip install 'zenml>=0.95,<1'" in lines[1]
    assert "| zenml\n" not in done.stderr


def test_the_readme_names_the_versions_of_the_package() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    named = {}
    for line in lines:
        text = line.strip().strip('",')
        if text.startswith(("modal>", "zenml[")):
            requirement = Requirement(text)
            # An extra repeats a package for more parts of it, without bounds.
            if requirement.specifier:
                named[requirement.name] = min(str(one.version) for one in requirement.specifier)
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"ZenML {named['zenml']} or newer" in readme
    assert f"modal {named['modal']} or newer" in readme
