"""A source tree takes nothing private along, and nothing from outside of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.plan.deployment import Deployment
from modalrun.plan.stack import StackDescription
from modalrun.run.source import Source
from modalrun.spec.precedence import Origin, SettingsLayer
from modalrun.spec.run_spec import RunSpec
from modalrun.submit.preflight import check
from modalrun.submit.prepare import plan_deployment
from modalrun.submit.source import selection as source_selection
from modalrun.submit.source import staging
from modalrun.submit.source.selection import select
from modalrun.submit.source.staging import stage, stage_again
from modalrun.submit.source.tree import SourceSelection
from modalrun.submit.submission import Submission
from tests.source_trees import git, names, selected, write
from tests.unit.fake_zenml import FakeZenML, compiled
from tests.unit.fakes import Effects, FakeModal, FakeObserver

pytestmark = pytest.mark.usefixtures("no_surrounding_repository")


# Private folders.


@pytest.mark.parametrize("below", [".", "..", "../..", "link", ".ssh", ".config/gcloud/x"])
def test_the_home_folder_is_refused(
    tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / "me"
    (home / ".ssh").mkdir(parents=True)
    (home / ".config" / "gcloud" / "x").mkdir(parents=True)
    (home / "link").symlink_to(home)
    monkeypatch.setenv("HOME", str(home))
    write(home, {"training.py": "x", "project/training.py": "x"})
    with pytest.raises(UsageError, match="The source root") as caught:
        selected(home / below)
    assert "source_root" in str(caught.value.hint)
    with pytest.raises(UsageError, match="The source root"):
        stage_again(Source("0" * 64), SourceSelection(home / below), tmp_path / "copy")
    assert names(selected(home / "project")) == ["training.py"]


def test_the_file_systems_root_is_refused() -> None:
    for folder in ("/", "/tmp/..", "/proc/self/root"):
        with pytest.raises(UsageError, match="The source root"):
            selected(Path(folder))


def test_a_folder_for_temporary_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "mine"))
    # A home folder below /tmp has a message of its own.
    monkeypatch.setenv("HOME", "/home/somebody")
    for folder in ("/tmp", "/var/tmp", "/tmp/../tmp", str(tmp_path / "mine")):
        with pytest.raises(UsageError, match="temporary files of all programs"):
            selected(Path(folder))


def test_another_home_in_the_environment_does_not_open_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="home folder"):
        selected(Path(pwd.getpwuid(os.getuid()).pw_dir))


def test_a_submission_from_the_home_folder_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also behind the flavor, whose source root ZenML derives from the script."""
    write(tmp_path, {"project/training.py": "x"})
    effects = Effects()
    zenml, modal = FakeZenML(effects, "initializing"), FakeModal(effects)
    spec = RunSpec.of_snapshot("local", tmp_path / "project", own_code=True)
    submission = Submission(
        check(spec, compiled(), FakeObserver(), modal=modal), FakeObserver(), zenml
    )
    effects.clear()
    monkeypatch.setenv("HOME", str(tmp_path / "project"))
    with pytest.raises(UsageError, match="home folder"):
        submission.create(zenml.create_run)
    assert effects == []


def test_a_component_of_a_shared_stack_takes_no_credential_along(tmp_path: Path) -> None:
    write(tmp_path, {"project/training.py": "x", "project/.env": "secret"})
    spec = RunSpec.of_snapshot("local", tmp_path / "project", own_code=True)
    layer = SettingsLayer({"source_include": [".env"]})
    for origin, taken in ((Origin.COMPONENT, False), (Origin.CODE_PIPELINE, True)):
        deployment = Deployment("p", (), {origin: layer})
        source = plan_deployment(deployment, StackDescription("id", "s"), spec).source
        assert source.include == (".env",)
        assert (".env" in names(select(source))) == taken


# Links.


@pytest.mark.parametrize(
    "target", ["../outside/file", "../outside", "/proc/self/environ", "/proc/self", "/etc"]
)
def test_a_link_that_leaves_the_tree_is_refused_by_name(root: Path, target: str) -> None:
    write(root.parent, {"outside/file": "secret"})
    (root / "link").symlink_to(target)
    tree = selected(root)
    assert names(tree) == ["training.py"]
    with pytest.raises(UsageError, match=r"link -> /") as caught:
        stage(tree, root.parent / "copy")
    assert caught.value.exit_code == 2


def test_links_that_leave_the_tree_through_others(root: Path) -> None:
    write(root.parent, {"outside/file": "secret"})
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("sub/three")
    (root / "sub").mkdir()
    (root / "sub" / "three").symlink_to("../../outside")
    assert {str(path) for path in selected(root).leaving} == {"one", "two", "sub/three"}


def test_links_inside_the_tree_go(root: Path) -> None:
    write(root, {"lib/a.py": "x"})
    (root / "b.py").symlink_to("lib/a.py")
    (root / "absolute.py").symlink_to(root / "lib" / "a.py")
    (root / "other").symlink_to("lib")
    tree = selected(root)
    assert names(tree) == ["absolute.py", "b.py", "lib/a.py", "other/a.py", "training.py"]
    stage(tree, root.parent / "copy")
    assert (root.parent / "copy" / "other" / "a.py").read_text() == "x"


@pytest.mark.parametrize("rule", [".gitignore", ".dockerignore"])
def test_an_ignored_link_that_leaves_the_tree_is_no_obstacle(root: Path, rule: str) -> None:
    write(root, {rule: "data\n"})
    (root / "data").symlink_to("/usr")
    selected(root).check()


def test_a_tracked_link_that_leaves_the_tree_needs_dockerignore(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, {"training.py": "x", ".gitignore": "link\n"})
    (tmp_path / "link").symlink_to("/etc/passwd")
    git(tmp_path, "add", "-f", "link")
    with pytest.raises(UsageError, match="link -> /etc/passwd") as caught:
        selected(tmp_path).check()
    assert ".dockerignore" in str(caught.value.hint)
    assert ".gitignore" not in str(caught.value.hint)
    write(tmp_path, {".dockerignore": "link\n"})
    selected(tmp_path).check()


@pytest.mark.parametrize("hidden", [".git/config", ".venv/secret", ".env"])
def test_a_link_to_what_never_goes_does_not_go(root: Path, hidden: str) -> None:
    if hidden.startswith(".git") and not (root / ".git").exists():
        git(root, "init", "-q")
    write(root, {hidden: "[secret]", "sub/x": "x"})
    (root / "sub" / "link").symlink_to(root / hidden)
    assert "sub/link" not in names(selected(root))


def test_links_that_lead_to_one_another_have_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_selection, "MAX_LINKED_FOLDERS", 50)
    folders = [f"f{number}" for number in range(8)]
    write(tmp_path, {f"{name}/x": "x" for name in folders})
    for name in folders:
        for other in folders:
            if other != name:
                (tmp_path / name / other).symlink_to(f"../{other}")
    with pytest.raises(UsageError, match="Links to folders"):
        selected(tmp_path)


@pytest.mark.parametrize("part", ["code", "code/a.py"])
def test_a_link_that_comes_after_the_selection_is_not_followed(root: Path, part: str) -> None:
    write(root.parent, {"outside/a.py": "secret"})
    write(root, {"code/a.py": "x"})
    tree = selected(root)
    (root / part).rename(root.parent / "moved")
    (root / part).symlink_to(root.parent / "outside" / ("a.py" if part.endswith(".py") else ""))
    with pytest.raises(UsageError, match=r"code/a\.py can't be copied"):
        stage(tree, root.parent / "copy")
    assert not (root.parent / "copy" / "code" / "a.py").exists()


def test_a_link_in_place_of_the_source_root_is_not_followed(root: Path) -> None:
    tree = selected(root)
    write(root.parent, {"outside/training.py": "secret"})
    root.rename(root.parent / "moved")
    root.symlink_to("outside")
    with pytest.raises(UsageError, match="can't be copied"):
        stage(tree, root.parent / "copy")


def test_a_resumed_run_takes_no_link_out_of_the_tree_along(root: Path) -> None:
    write(root.parent, {"outside": "secret"})
    (root / "link").symlink_to("../outside")
    source = Source("0" * 64, {"link": "0" * 12, "training.py": "0" * 12})
    with pytest.raises(UsageError, match="missing"):
        stage_again(source, SourceSelection(root), root.parent / "copy")
    assert [path.name for path in (root.parent / "copy").iterdir()] == ["training.py"]


# What is no regular file.


def test_pipes_sockets_and_devices_neither_go_nor_hang(root: Path) -> None:
    os.mkfifo(root / "pipe")
    os.mkfifo(root / ".dockerignore.pipe")
    (root / "to_pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(root)
        listener.bind("socket")
        os.chdir(here)
        assert names(selected(root)) == ["training.py"]


def test_a_file_that_becomes_a_pipe_does_not_hang(root: Path) -> None:
    tree = selected(root)
    (root / "training.py").unlink()
    os.mkfifo(root / "training.py")
    with pytest.raises(UsageError, match="no regular file"):
        stage(tree, root.parent / "copy")


@pytest.mark.parametrize("name", [".dockerignore", ".gitignore"])
def test_an_ignore_file_that_is_a_pipe_does_not_hang(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_selection.git_files, "SECONDS", 1)
    os.mkfifo(root / name)
    if name == ".dockerignore":
        with pytest.raises(UsageError, match=r"\.dockerignore can't be read"):
            selected(root)
    else:
        with pytest.raises(UsageError, match=r"\.gitignore is no regular file"):
            selected(root)


def test_a_file_that_goes_while_it_is_copied_is_named(root: Path) -> None:
    tree = selected(root)
    (root / "training.py").unlink()
    with pytest.raises(UsageError, match=r"training\.py can't be copied .*: No such file"):
        staging.stage(tree, root.parent / "copy")
