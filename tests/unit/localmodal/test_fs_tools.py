"""The program behind a sandbox's filesystem API."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modalrun.localmodal.sandbox.fs_tools import Watch


def changes(watch: Watch) -> list[tuple[str, str]]:
    """What has happened, without that the watch itself has read folders."""
    return [event for event in watch.events() if event[0] != "Access"]


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_folders_that_appear_together_are_watched(tmp_path: Path) -> None:
    seen, aside = tmp_path / "seen", tmp_path / "aside"
    (seen / "old").mkdir(parents=True)
    (aside / "inner").mkdir(parents=True)
    (aside / "inner" / "file").touch()
    watch = Watch(str(seen), recursive=True)
    (seen / "old" / "a" / "b" / "c").mkdir(parents=True)
    aside.rename(seen / "moved")
    assert changes(watch) == [
        ("Create", f"{seen}/old/a"),
        ("Create", f"{seen}/old/a/b"),
        ("Create", f"{seen}/old/a/b/c"),
        ("RenameTo", f"{seen}/moved"),
        ("Create", f"{seen}/moved/inner"),
        ("Create", f"{seen}/moved/inner/file"),
    ]
    (seen / "old" / "a" / "b" / "c" / "new").mkdir()
    (seen / "moved" / "inner" / "file").unlink()
    assert changes(watch) == [
        ("Create", f"{seen}/old/a/b/c/new"),
        ("Remove", f"{seen}/moved/inner/file"),
    ]
