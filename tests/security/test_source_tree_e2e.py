"""A user sees what goes to a sandbox and what stays behind, and is told what is refused."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

SPEC = "pipeline: surroundings.surroundings\ntarget: local\n"


def test_what_goes_is_shown_and_credentials_stay(world: World) -> None:
    project = world.project
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    for name in (".env", "deploy.pem", "ignored.csv", "kept.csv"):
        (project / name).write_text("secret")
    (project / ".gitignore").write_text("*.csv\n")
    spec = world.spec(f"{SPEC}source_include: [kept.csv]\n")

    planned = world.modalrun("plan", str(spec), "--files").finish()
    done = world.submit(spec)

    assert planned.exit_code == 0, planned.stderr
    lines = planned.stdout.splitlines()
    (source,) = (line for line in lines if line.startswith("source: "))
    assert source.endswith(" untracked; left out: 2 credential files, 1 ignored file)")
    assert "source_include: [PATH]" in planned.stdout
    rules = {line.split()[0]: line for line in lines[lines.index("Left out") :] if line.strip()}
    assert "environment variables" in rules[".env"]
    assert "*.csv in .gitignore:1" in rules["ignored.csv"]
    assert "kept.csv" not in rules
    assert done.exit_code == 0, done.stderr
    assert f"{source[:-1]}; 'modalrun plan SPEC --files' lists them)" in done.stderr.splitlines()
    (line,) = (text for text in done.stdout.splitlines() if " | SURROUNDINGS " in text)
    found = set(json.loads(line.partition(" | SURROUNDINGS ")[2])["files"])
    assert "kept.csv" in found
    assert not found & {".env", "deploy.pem", "ignored.csv"}


def test_a_private_folder_and_a_link_out_of_the_tree_are_refused(world: World) -> None:
    spec = world.spec(SPEC)
    home = world.modalrun("submit", str(spec), HOME=str(world.project)).finish()
    assert (home.exit_code, world.runs()) == (2, [])
    assert "is your home folder" in home.stderr
    assert "source_root" in home.stderr

    (world.project / "environ").symlink_to("/proc/self/environ")
    for command in ("submit", "plan"):
        linked = world.modalrun(command, str(spec)).finish()
        assert linked.exit_code == 2
        assert "environ -> /proc/" in linked.stderr
    assert world.runs() == []


def test_a_deployment_file_that_was_moved_takes_no_other_folder_along(world: World) -> None:
    file = world.project / "deployment.json"
    compiled = world.modalrun("compile", str(world.spec(SPEC)), "-o", str(file)).finish()
    assert compiled.exit_code == 0, compiled.stderr
    other = world.root / "other"
    other.mkdir()
    (other / "diary.txt").write_text("secret")
    moved = file.rename(other / "deployment.json")
    for command in ("plan", "submit"):
        refused = world.modalrun(command, str(moved), "--target", "local").finish()
        assert refused.exit_code == 2, refused.stderr
        text = " ".join(refused.stderr.split())
        assert "compiled from surroundings.py, which" in text
        assert "--source-root" in text
    assert world.runs() == []


def test_a_deployment_file_from_elsewhere(world: World) -> None:
    (world.root / "private").mkdir()
    (world.root / "private" / "diary").write_text("secret")
    file = world.project / "files" / "deployment.json"
    file.parent.mkdir()
    compiled = world.modalrun("compile", str(world.spec(SPEC)), "-o", str(file)).finish()
    assert compiled.exit_code == 0, compiled.stderr
    assert "--source-root" in compiled.stderr

    for command in ("plan", "submit", "doctor"):
        refused = world.modalrun(command, str(file), "--target", "local").finish()
        assert refused.exit_code == 2, refused.stderr
        assert "which is not below its own folder" in " ".join(
            f"{refused.stdout} {refused.stderr}".split()
        )
    done = world.modalrun(
        *("submit", str(file), "--target", "local", "--source-root", str(world.project))
    ).finish()
    assert done.exit_code == 0, done.stderr
