"""modalrun in one file, compiled."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from modalrun.util.package_archive import write_archive

MOUNTED = "/opt/modalrun/modalrun.zip"

_RUN = """
import sys, zipimport
def compiled(*_): raise AssertionError("compiled")
zipimport._compile_source = compiled
import modalrun.driver.supervisor, modalrun.run.manifest, modalrun.plan.isolated_step
print(modalrun.__file__, modalrun.driver.supervisor.main.__code__.co_filename)
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("package") / "modalrun.zip"
    write_archive(file, MOUNTED)
    return file


def python(archive: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the modalrun of the archive."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(archive)},
        cwd=archive.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_is_compiled_where_it_is_imported(archive: Path) -> None:
    done = python(archive, _RUN)
    where = f"{archive}/modalrun/__init__.pyc {MOUNTED}/modalrun/driver/supervisor.py\n"
    assert (done.stdout, done.stderr) == (where, "")


def test_another_python_compiles_the_sources(archive: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "modalrun.zip"
    with zipfile.ZipFile(archive) as ours, zipfile.ZipFile(foreign, "w") as theirs:
        for name in ours.namelist():
            content = ours.read(name)
            theirs.writestr(name, b"\0" * 4 + content[4:] if name.endswith(".pyc") else content)
    done = python(foreign, "import modalrun.run.contract as c; print(c.__file__)")
    assert (done.stdout, done.stderr) == (f"{foreign}/modalrun/run/contract.py\n", "")


def test_the_same_source_makes_the_same_file_without_paths(archive: Path, tmp_path: Path) -> None:
    """It is sent once, and tells nothing of this machine."""
    again = tmp_path / "again.zip"
    code = (
        "import asyncio, pathlib, sys; from modalrun.util.package_archive import write_archive;"
        " write_archive(pathlib.Path(sys.argv[1]), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, again, MOUNTED], check=True)
    # Bytecode of Python 3.10 has sets in any order (bpo-37596).
    assert sys.version_info < (3, 11) or again.read_bytes() == archive.read_bytes()
    with zipfile.ZipFile(archive) as packed:
        here = str(Path(__file__).parents[3]).encode()
        assert not any(here in packed.read(name) for name in packed.namelist())
