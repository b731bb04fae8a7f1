"""What of the source tree a sandbox gets is seen, and what it lacks is said."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e


def test_a_file_that_did_not_go_along_is_named_with_its_rule(world: World) -> None:
    (world.project / "data").mkdir()
    (world.project / "data" / "labels.csv").write_text("a,b")
    (world.project / ".gitignore").write_text("data/\n")

    done = world.submit("pipeline: missing.missing\ntarget: local\n")

    told = " ".join(done.stderr.split())
    assert done.exit_code == 1
    reason = "FileNotFoundError: [Errno 2] No such file or directory: 'data/labels.csv'"
    assert f"reads: {reason} (missing.py:11)" in told
    assert "labels.csv is in the source root, but did not go along (data/ in .gitignore)" in told
    assert "'source_include: [data/labels.csv]' takes it along" in told


def test_a_src_layout_and_a_module_that_hides_another_are_refused(world: World) -> None:
    package = world.project / "src" / "churn"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (world.project / "missing.py").rename(package / "training.py")
    spec = world.spec("pipeline: churn.training.missing\ntarget: local\n")

    done = world.submit(spec, PYTHONPATH=str(package.parent))

    told = " ".join(done.stderr.split())
    assert done.exit_code == 2
    assert f"is imported from {package.resolve()}" in told and "source_root: src" in told

    (world.project / "yaml.py").write_text("")
    # Also where the current folder is the source root.
    command = [sys.executable, "-m", "modalrun", "plan", str(spec)]
    done = world.start(command, cwd=world.project).finish()
    assert done.exit_code == 2
    assert "yaml.py hides the module 'yaml' that ZenML and modalrun import" in done.stderr
    assert not world.runs()
