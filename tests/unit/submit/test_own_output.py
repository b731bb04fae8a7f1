"""The file that a command prints to is no part of the source tree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.source_trees import git

SELECT = """
import json, sys
from pathlib import Path
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection
root, *include = sys.argv[1:]
tree = select(SourceSelection(Path(root), include=tuple(include)))
print(json.dumps([file.path.name for file in tree.files]))
"""


def test_it_goes_along_only_if_it_is_tracked_or_named(tmp_path: Path) -> None:
    repository = tmp_path
    git(repository, "init", "-q")
    for name in ("other.txt", "tracked.txt"):
        (repository / name).write_text("x")
    git(repository, "add", "tracked.txt")

    def seen(stdout: str, stderr: str, *include: str) -> list[str]:
        with (repository / stdout).open("w") as out, (repository / stderr).open("w") as err:
            command = [sys.executable, "-c", SELECT, str(repository), *include]
            subprocess.run(command, stdout=out, stderr=err, cwd=repository, check=True)
        found: list[str] = json.loads((repository / stdout).read_text())
        return found

    assert seen("out.txt", "err.txt") == ["other.txt", "tracked.txt"]
    assert seen("out.txt", "err.txt", "err.txt") == ["err.txt", "other.txt", "tracked.txt"]
    assert "tracked.txt" in seen("tracked.txt", "tracked.txt")
