"""What a shell offers at the Tab key."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import DEADLINE

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

SPEC = "pipeline: diamond.diamond\ntarget: local\n"

COMPLETE = f"""
from modalrun.__main__ import main
from modalrun.zenml_api.records import completion
completion.TIMEOUT_SECONDS = {DEADLINE}
main()
"""
"""A completion that waits for the records: a ZenML server on a busy machine may take more than two
seconds for one answer, and a SQLite file may be locked as long."""


def completed(world: World, *typed: str, shell: str = "bash", **environment: str) -> list[str]:
    """Return what is offered for the last word."""
    line = " ".join(("modalrun", *typed))
    done = world.start(
        [sys.executable, "-c", COMPLETE],
        _MODALRUN_COMPLETE=f"complete_{shell}",
        COMP_WORDS=line,
        COMP_CWORD=str(len(typed)),
        _TYPER_COMPLETE_ARGS=line,
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        **environment,
    ).finish()
    assert done.stderr == ""
    return done.stdout.split()


def test_steps_pipelines_and_sandboxes(world: World) -> None:
    done = world.submit(SPEC)
    assert done.exit_code == 0, done.stderr
    made = world.only_run()
    (sandbox,) = world.sandboxes()

    assert completed(world, "logs", made.name, "--step", "l") == ["left", "load"]
    assert completed(world, "rerun", "--from", "jo", shell="fish") == ["join"]
    assert completed(world, "list", "--pipeline", "d") == ["diamond"]
    assert completed(world, "local", "logs", "sb-") == [sandbox.id]
    # Else bash would list files.
    assert completed(world, "local", "kill", "sb-") == ["sb-"]
    assert completed(world, "local", "kill", "sb-", shell="fish") == []
    assert completed(world, "stop", made.name[:3]) == [made.name[:3]]
    unreadable = {"ZENML_STORE_URL": "http://127.0.0.1:1"}
    assert completed(world, "logs", "--step", "l", **unreadable) == ["l"]


def test_words_that_are_known_without_a_run(world: World) -> None:
    assert completed(world, "list", "--state", "st") == ["stopping", "stopped"]
    assert "H100,A100-80GB" in completed(world, "submit", "--gpu", "H100,A100")
    assert completed(world, "plan", "--cloud", "g", shell="fish") == ["gcp"]
    offered = " ".join(completed(world, "list", "--state", "st", shell="zsh"))
    assert '"stopping"' in offered and '"stopped"' in offered


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_completion_is_installed_and_shown(world: World) -> None:
    programs = world.root / "programs"
    programs.mkdir()
    program = programs / "modalrun"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m modalrun "$@"\n')
    program.chmod(0o755)
    script = (
        "modalrun --install-completion; echo $?; modalrun --show-completion; echo $?;"
        "source ~/.bashrc; COMP_WORDS=(modalrun list --state fa); COMP_CWORD=3;"
        '_modalrun_completion modalrun; echo "offered: ${COMPREPLY[*]}"'
    )
    home = world.root / "home-of-bash"
    home.mkdir()

    done = world.start(
        ["bash", "-c", script], HOME=str(home), PATH=f"{programs}{os.pathsep}{os.environ['PATH']}"
    ).finish()

    assert done.stdout.splitlines().count("0") == 2, done.stdout
    assert done.stdout.endswith("offered: failed\n")
    assert (done.exit_code, done.stderr) == (0, "")
    assert (Path(home) / ".bash_completions" / "modalrun.sh").exists()
