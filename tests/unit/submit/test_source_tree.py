"""Which files go to a sandbox, and the copy of them."""

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.run.source import Source
from modalrun.submit.source import tree as source_tree
from modalrun.submit.source.selection import NEVER, select
from modalrun.submit.source.staging import hash_files, hash_tree
from modalrun.submit.source.staging import stage as stage_tree
from modalrun.submit.source.tree import SourceSelection
from tests.source_trees import git


def make(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def listed(root: Path) -> list[str]:
    return [file.path.as_posix() for file in select(SourceSelection(root)).files]


def stage(root: Path, folder: Path) -> Source:
    return stage_tree(select(SourceSelection(root)), folder)


@pytest.fixture(autouse=True)
def _no_surrounding_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


# In a Git work tree.


def test_tracked_and_new_files_but_no_ignored_ones(repository: Path) -> None:
    make(repository, "tracked.py", "sub/tracked.py", "data.bin", "sub/private.txt", "new.py")
    make(repository, ".gitignore", text="*.bin\n")
    make(repository, "sub/.gitignore", text="private.txt\n")
    git(repository, "add", "tracked.py", "sub/tracked.py", ".gitignore")
    git(repository, "commit", "-qm", "x")
    assert listed(repository) == [
        ".gitignore",
        "new.py",
        "sub/.gitignore",
        "sub/tracked.py",
        "tracked.py",
    ]


def test_tracked_file_that_is_ignored_too(repository: Path) -> None:
    make(repository, "model.bin")
    make(repository, ".gitignore", text="*.bin\n")
    git(repository, "add", "-f", "model.bin")
    assert "model.bin" in listed(repository)


def test_a_report_goes_along_only_if_it_is_tracked_or_named(repository: Path) -> None:
    make(repository, "report-00c0ffee.html", "sub/report-0d1f5b62.html", "report-final.html")
    tree = select(SourceSelection(repository))
    assert [file.path.name for file in tree.files] == ["report-final.html"]
    assert set(tree.left_out.values()) == {"a page of 'modalrun report'"}
    git(repository, "add", "sub")
    assert listed(repository) == ["report-final.html", "sub/report-0d1f5b62.html"]
    make(repository, "kept/report-00000000.html")
    named = SourceSelection(repository, include=("report-00c0ffee.html", "kept"))
    assert len(select(named).files) == 4


def test_deleted_file_that_git_still_tracks(repository: Path) -> None:
    make(repository, "kept.py", "deleted.py")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "x")
    (repository / "deleted.py").unlink()
    assert listed(repository) == ["kept.py"]


def test_folder_inside_a_repository(repository: Path) -> None:
    make(repository, "outside.py", "code/a.py", "code/ignored.bin")
    make(repository, ".gitignore", text="*.bin\n")
    assert listed(repository / "code") == ["a.py"]


def test_ignored_folder_inside_a_repository_is_a_tree_of_its_own(repository: Path) -> None:
    make(repository, "scratch/a.py", "scratch/b.py")
    make(repository, ".gitignore", text="scratch/\n")
    assert listed(repository / "scratch") == ["a.py", "b.py"]


def test_never_counts_in_a_repository_too(repository: Path) -> None:
    make(repository, "a.py", ".venv/lib/b.py", "sub/__pycache__/c.pyc", "node_modules/d.js")
    git(repository, "add", "-f", ".")
    assert listed(repository) == ["a.py"]


def test_a_repository_that_git_refuses_is_an_error(repository: Path) -> None:
    make(repository, "a.py")
    (repository / ".git" / "HEAD").write_text("broken", encoding="utf-8")
    with pytest.raises(UsageError, match="not a git repository") as caught:
        listed(repository)
    assert caught.value.hint == f"See what 'git status' says in {repository}."
    shutil.rmtree(repository / ".git")
    (repository / ".git").mkdir()
    with pytest.raises(UsageError, match="not a git repository") as caught:
        listed(repository)
    assert caught.value.hint and "is empty: remove it" in caught.value.hint


def test_without_git_a_repository_is_an_error_and_another_folder_is_walked(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Git tracks a file that it would ignore: without Git it would stay behind.
    make(repository, "a.py", "tracked.bin")
    make(repository, ".gitignore", text="*.bin\n")
    git(repository, "add", "-f", ".")
    assert "tracked.bin" in listed(repository)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="git is not installed") as caught:
        listed(repository)
    assert f"leave {repository / '.git'} out of it" in caught.value.hint
    shutil.rmtree(repository / ".git")
    assert listed(repository) == [".gitignore", "a.py"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_somebody_else_is_an_error_with_the_command(repository: Path) -> None:
    make(repository, "a.py")
    git(repository, "add", ".")
    make(repository, "code/b.py")
    for path in (repository, repository / ".git"):
        os.chown(path, 12_345, 12_345)
    with pytest.raises(UsageError, match="detected dubious ownership") as caught:
        listed(repository / "code")
    assert f"git config --global --add safe.directory {repository}" in caught.value.hint


def test_submodule(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    make(other, "lib.py")
    git(other, "add", ".")
    git(other, "commit", "-qm", "x")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), "lib")
    assert "lib/lib.py" in listed(repository)


def test_repository_inside_a_repository(repository: Path) -> None:
    make(repository, "a.py", "inner/b.py")
    git(repository / "inner", "init", "-q")
    assert "inner/b.py" in listed(repository)


def test_inside_a_hook_of_another_repository(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(repository, "a.py", "excluded.bin")
    (repository / ".git" / "info" / "exclude").write_text("*.bin\n", encoding="utf-8")
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert listed(repository) == ["a.py"]


# Elsewhere.


def test_not_a_repository(tmp_path: Path) -> None:
    make(tmp_path, "b.py", "a.py", "sub/deep/c.txt", ".env", "empty.py")
    assert listed(tmp_path) == ["a.py", "b.py", "empty.py", "sub/deep/c.txt"]


@pytest.mark.parametrize("name", sorted(NEVER - {".git"}))
def test_folders_that_never_go(tmp_path: Path, name: str) -> None:
    make(tmp_path, "a.py", f"{name}/b.py", f"sub/{name}/c.py")
    assert listed(tmp_path) == ["a.py"]


def test_virtual_environment_of_any_name(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "sub/my-env/pyvenv.cfg", "sub/my-env/lib/b.py", "sub/c.py")
    assert listed(tmp_path) == ["a.py", "sub/c.py"]


def test_the_root_itself_may_have_any_name(tmp_path: Path) -> None:
    root = tmp_path / "venv"
    make(root, "a.py")
    assert listed(root) == ["a.py"]


NOT_UTF8 = b"\xff\xfe.py"
NAMES = [
    b"with space.py",
    b"line\nfeed.py",
    NOT_UTF8,
    "ümläut 😀.py".encode(),
    b"-rf",
    b"a'\"b",
]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take UTF-8 names only")
@pytest.mark.parametrize("in_git", [False, True])
def test_names_of_any_bytes(tmp_path: Path, in_git: bool) -> None:
    root = tmp_path / "root"
    root.mkdir()
    if in_git:
        git(root, "init", "-q")
    for name in NAMES:
        (root / os.fsdecode(name)).write_bytes(name)
    copy = tmp_path / "copy"
    staged = [name for name in NAMES if name != NOT_UTF8]
    # Modal's names are UTF-8.
    assert len(stage(root, copy).files) == len(staged)
    for name in staged:
        assert (copy / os.fsdecode(name)).read_bytes() == name


@pytest.mark.parametrize("in_git", [False, True])
def test_symlinks(tmp_path: Path, in_git: bool) -> None:
    """A link to a file goes as the file; what is no file, or has no end, stays behind."""
    root = tmp_path / "root"
    make(root, "real.py", text="content")
    if in_git:
        git(root, "init", "-q")
    (root / "to_file.py").symlink_to("real.py")
    (root / "dangling.py").symlink_to("absent.py")
    (root / "loop.py").symlink_to("loop.py")
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    (root / "itself").symlink_to(".")
    assert listed(root) == ["real.py", "to_file.py"]
    stage(root, tmp_path / "copy")
    copied = tmp_path / "copy" / "to_file.py"
    assert copied.read_text(encoding="utf-8") == "content"
    assert not copied.is_symlink()


@pytest.mark.parametrize("in_git", [False, True])
def test_symlink_to_a_folder(tmp_path: Path, in_git: bool) -> None:
    root = tmp_path / "root"
    make(root, "a.py", "code/module.py")
    if in_git:
        git(root, "init", "-q")
    (root / "library").symlink_to("code")
    assert "library/module.py" in listed(root)


def test_what_is_no_file_stays_behind(tmp_path: Path) -> None:
    make(tmp_path, "a.py")
    os.mkfifo(tmp_path / "pipe")
    assert listed(tmp_path) == ["a.py"]


# Size.


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_tree, "MAX_BYTES", 2_000_000)
    make(tmp_path, "small.py")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "large.bin").write_bytes(b"")
    os.truncate(tmp_path / "data" / "large.bin", 2_000_000)
    with pytest.raises(UsageError) as caught:
        select(SourceSelection(tmp_path)).check()
    assert str(tmp_path) in caught.value.message
    assert "data/large.bin" in caught.value.message
    assert "2 MB" in caught.value.message
    assert "source_root" in str(caught.value.hint)
    with pytest.raises(UsageError):
        stage(tmp_path, tmp_path / "copy")


def test_as_large_as_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_tree, "MAX_BYTES", 10)
    make(tmp_path, "a.py", text="12345")
    make(tmp_path, "b.py", text="12345")
    assert listed(tmp_path) == ["a.py", "b.py"]


def test_the_real_bound() -> None:
    assert source_tree.MAX_BYTES == 500_000_000


# The copy.


def test_staged_copies_keep_the_mode_and_no_time_to_come(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(root, "run.sh", "sub/plain.py", text="content")
    (root / "run.sh").chmod(0o750)
    (root / "sub" / "plain.py").chmod(0o600)
    later = time.time() + 3600
    os.utime(root / "run.sh", (later, later))
    copy = tmp_path / "copy"
    copy.mkdir()
    assert len(stage(root, copy).files) == 2
    for name, mode in (("run.sh", 0o750), ("sub/plain.py", 0o600)):
        assert (copy / name).read_text(encoding="utf-8") == "content"
        assert (copy / name).stat().st_mode & 0o777 == mode
    assert (copy / "run.sh").stat().st_mtime <= time.time()


def test_staged_copies_are_copies(tmp_path: Path) -> None:
    make(tmp_path / "root", "a.py", text="before")
    stage(tmp_path / "root", tmp_path / "copy")
    make(tmp_path / "root", "a.py", text="after")
    assert (tmp_path / "copy" / "a.py").read_text(encoding="utf-8") == "before"


def test_nothing_to_stage(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(root, ".venv/a.py")
    with pytest.raises(UsageError, match="holds no files"):
        stage(root, tmp_path / "copy")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_can_not_be_read(tmp_path: Path) -> None:
    make(tmp_path / "root", "a.py")
    (tmp_path / "root" / "a.py").chmod(0)
    with pytest.raises(UsageError, match=r"a\.py"):
        stage(tmp_path / "root", tmp_path / "copy")


@pytest.mark.parametrize("change", ["deleted", "a folder", "in a file"])
def test_a_file_that_changes_meanwhile_is_named(tmp_path: Path, change: str) -> None:
    make(tmp_path / "root", "a.py", "sub/b.py")
    tree = select(SourceSelection(tmp_path / "root"))
    if change == "in a file":
        shutil.rmtree(tmp_path / "root" / "sub")
        make(tmp_path / "root", "sub")
    else:
        (tmp_path / "root" / "sub" / "b.py").unlink()
        if change == "a folder":
            (tmp_path / "root" / "sub" / "b.py").mkdir()
    with pytest.raises(UsageError, match=r"b\.py can't be copied") as caught:
        stage_tree(tree, tmp_path / "copy")
    assert caught.value.hint
    assert listed(tmp_path / "root") == (["a.py", "sub"] if change == "in a file" else ["a.py"])


def test_hashes_of_staged_files(tmp_path: Path) -> None:
    make(tmp_path, "b.py", "sub/a.py", "same.py")
    (tmp_path / "same.py").chmod(0o755)
    found = hash_files(tmp_path)
    assert list(found) == ["b.py", "same.py", "sub/a.py"]
    assert found["b.py"] == found["sub/a.py"]
    assert found["same.py"] == f"{found['b.py']}+x"
    total = hash_tree(found)
    assert total != hash_tree({**found, "b.py": found["same.py"]})
    assert total != hash_tree({**found, "new.py": found["b.py"]})


def test_hash_of_a_file_whose_name_is_no_text() -> None:
    assert hash_tree({os.fsdecode(b"\xff.py"): "0"}) != hash_tree({"": "0"})


def test_git_is_there() -> None:
    """The tests above would pass for a wrong reason without it."""
    assert shutil.which("git")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("in_git", [False, True])
def test_a_name_that_is_not_utf8_is_left_out_and_named(tmp_path: Path, in_git: bool) -> None:
    root = tmp_path / "root"
    make(root, "code.py")
    Path(os.fsdecode(os.fsencode(root) + b"/d\xe9r")).mkdir()
    for name in (b"caf\xe9.csv", b"d\xe9r/a.txt"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_text("x")
    Path(os.fsdecode(os.fsencode(root) + b"/l\xe9")).symlink_to("code.py")
    if in_git:
        git(root, "init", "-q")
        git(root, "add", "-A")
    tree = select(SourceSelection(root))
    assert [file.path.name for file in tree.files] == ["code.py"]
    assert sorted(tree.notes) == [
        f"the file {name} is left out: its name is not UTF-8"
        for name in (r"caf\xe9.csv", r"d\xe9r/a.txt", r"l\xe9")
    ]
