"""Check the size of modules, imports of pure packages, who prints, and the layout of unit tests."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import modalrun

PACKAGE = Path(modalrun.__file__).parent
TESTS = Path(__file__).parents[1]
MOST_LINES = 400
PURE = ("util", "run", "spec", "plan")

_IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print(sorted({"modal", "zenml", "rich"} & set(sys.modules)))
"""


def test_no_module_is_too_long() -> None:
    lengths = {
        str(path): len(path.read_text(encoding="utf-8").splitlines())
        for folder in (PACKAGE, TESTS)
        for path in folder.rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


@pytest.mark.parametrize("name", PURE)
def test_pure_packages_import_neither_an_sdk_nor_rich(name: str) -> None:
    command = [sys.executable, "-c", _IMPORT_ALL, f"modalrun.{name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


_IMPORT = """
import importlib, sys
*modules, unwanted = sys.argv[1:]
for name in modules:
    module, _, function = name.partition(":")
    module = importlib.import_module(module)
    if function:
        getattr(module, function)()
print(sorted(name for name in unwanted.split() if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("driver.supervisor", "pydantic yaml psutil asyncio zenml modal"),
        (
            "driver.per_step modal_api.sandboxes.step_sandboxes",
            "modalrun.localmodal modalrun.plan zenml",
        ),
        # With a ZenML server, as on Modal.
        (
            "driver.step driver.step_worker driver.dynamic zenml_api.execution.dynamic"
            " zenml_api.execution.pipeline_steps zenml_api.execution.single_step:import_ahead",
            "modalrun.plan modalrun.modal_api modal sqlalchemy alembic",
        ),
    ],
)
def test_processes_of_a_run_import_only_what_they_need(modules: str, unwanted: str) -> None:
    names = [f"modalrun.{name}" for name in modules.split()]
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, *names, unwanted],
        env={**os.environ, "ZENML_STORE_URL": "https://zenml.example"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_unit_tests_mirror_the_packages() -> None:
    tests = Path(__file__).parent
    folders = {path.parent.relative_to(tests) for path in tests.glob("*/**/test_*.py")}
    assert folders <= {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("__init__.py")}


WRITERS = {"output/terminal/console.py", "output/terminal/writer.py"}
IN_SANDBOXES = ("driver/", "run/", "localmodal/")


def test_one_writer() -> None:
    """Consoles are created, and streams are written to, in one place."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        if name in WRITERS or name.startswith(IN_SANDBOXES):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                stream = called.endswith((".write", ".writelines")) and any(
                    part in called for part in ("std", "console", "__std")
                )
                if stream or called.split(".")[-1] in {"Console", "print_exc", "basicConfig"}:
                    found.append(f"{name}: {called}")
    # The process's standard input is no output.
    assert [one for one in found if "stdin" not in one] == []
