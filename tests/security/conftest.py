"""Fixtures of the security tests (those of the local Modal server), and how hypothesis runs."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.localmodal.conftest import connect, sdk, start, state
from tests.source_trees import git, write

__all__ = ["connect", "sdk", "start", "state"]

# The machine may be busy; what must take linear time is measured by `growth`.
settings.register_profile("security", deadline=None)
settings.load_profile("security")


@pytest.fixture
def no_surrounding_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git finds no repository above the test's folder, and no configuration of the user."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


@pytest.fixture(params=["in git", "elsewhere"])
def root(request: pytest.FixtureRequest, tmp_path: Path, no_surrounding_repository: None) -> Path:
    """A source tree with one file."""
    root = tmp_path / "project"
    root.mkdir()
    if request.param == "in git":
        git(root, "init", "-q")
    write(root, {"training.py": "x"})
    return root
