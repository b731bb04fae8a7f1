"""Mistakes on the command line of `status`, `list` and `reconcile`, found before ZenML is asked."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status"], "RUN is missing"),
        (["status", " "], "RUN is missing"),
        (["reconcile"], "RUN is missing"),
        (["list", "--state", "broken"], "there is no such state"),
        (["list", "--since", "yesterday"], "this is no moment"),
        (["list", "--limit", "0"], "--limit"),
        (["status", "latest", "--output", "yaml"], "--output"),
    ],
)
def test_a_mistake_is_found_without_zenml(arguments: list[str], says: str) -> None:
    code = (
        "import sys; from modalrun.cli import run; code = run(sys.argv[1:]);"
        "sys.exit(99 if {'zenml', 'modal'} & sys.modules.keys() else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stdout == ""
