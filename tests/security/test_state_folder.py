"""The local Modal server uses, changes and deletes nothing that is not its own."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.localmodal import launcher
from modalrun.localmodal.sandbox import rootfs
from modalrun.localmodal.server_info import ServerInfo
from modalrun.localmodal.storage.ids import new_id
from modalrun.localmodal.storage.paths import StateDir
from tests.localmodal.support import PATIENCE, TREE, processes_of, wait_for_end

Start = Callable[..., ServerInfo]
OLD = 1_000_000_000


def snapshot(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """The mode and content of everything below a folder, and of the folder itself."""
    paths = [folder, *folder.rglob("*")]
    return {
        str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in paths
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of the user's with names that the server uses too."""
    folder = tmp_path / "project"
    for name in ("sandboxes/sb-" + "a" * 22, "sandboxes/mine", "blobs", "logs", "uploads"):
        (folder / name).mkdir(parents=True)
        (folder / name / "kept").write_text("kept")
    (folder / "blobs" / ("0" * 64)).write_text("old")
    os.utime(folder / "blobs" / ("0" * 64), (OLD, OLD))
    folder.chmod(0o755)
    return folder


def modalrun(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modalrun", *arguments],
        env={**os.environ, "PYTHONPATH": TREE, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_folder_of_the_users(project: Path) -> None:
    before = snapshot(project)
    done = modalrun("local", "start", "--state-dir", str(project))
    assert done.returncode == 2
    assert "holds other files" in done.stderr and "--state-dir" in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(project) == before


@pytest.mark.parametrize("command", ["env", "status", "stop", "logs"])
def test_no_command_uses_it(project: Path, command: str) -> None:
    before = snapshot(project)
    functions: dict[str, Callable[[Path], object]] = {
        "env": launcher.ensure_running,
        "status": launcher.status,
        "stop": launcher.stop,
        "logs": lambda folder: list(launcher.stored(None, folder)),
    }
    with pytest.raises(UsageError, match="holds other files"):
        functions[command](project)
    assert snapshot(project) == before


def test_the_server_itself_refuses_it(project: Path) -> None:
    before = snapshot(project)
    done = subprocess.run(
        [sys.executable, "-m", "modalrun.localmodal", "--state-dir", str(project)],
        env={**os.environ, "PYTHONPATH": TREE},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2 and "holds other files" in done.stderr
    assert snapshot(project) == before


@pytest.mark.parametrize("below", ["", "child"])
def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    # Even an empty one, as in a new container.
    folder = tmp_path / "folder"
    (folder / below).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder / below))
    with pytest.raises(UsageError, match="home folder"):
        StateDir(folder).create()
    assert sorted(folder.rglob("*")) == ([folder / below] if below else [])


def test_a_link_to_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "link").symlink_to(tmp_path / "home")
    with pytest.raises(UsageError, match="home folder"):
        StateDir(tmp_path / "link").create()


def test_a_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    for path in (folder, tmp_path / "link"):
        for use in (launcher.ensure_running, launcher.status, launcher.stop):
            with pytest.raises(UsageError, match="another user"):
                use(path)
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_can_write_to(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for mode in (0o1777, 0o775):
        folder.chmod(mode)
        with pytest.raises(UsageError, match="can write") as caught:
            StateDir(folder).create()
        assert f"chmod 700 {folder}" in str(caught.value.hint)
        assert stat.S_IMODE(folder.stat().st_mode) == mode


@pytest.mark.parametrize("name", ["sandboxes", "server.lock", "server.log", "blobs"])
def test_a_link_in_a_marked_folder(project: Path, tmp_path: Path, name: str) -> None:
    # Such as from an archive.
    StateDir(tmp_path / "state").create()
    link = tmp_path / "state" / name
    if link.is_dir():
        link.rmdir()
    link.symlink_to(project / "sandboxes" if name == "sandboxes" else project / "blobs" / "kept")
    before = snapshot(project)
    with pytest.raises(UsageError, match="is a link"):
        launcher.ensure_running(tmp_path / "state")
    assert snapshot(project) == before


def test_an_empty_folder_becomes_the_servers(state: Path, start: Start) -> None:
    state.mkdir(mode=0o755)
    start()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    launcher.stop(state)
    start()


def test_a_fault_script_may_be_there_first(state: Path, start: Start) -> None:
    state.mkdir()
    StateDir(state).faults_file.write_text("[]")
    start()


def test_a_link_to_a_state_folder_of_ones_own(state: Path, start: Start) -> None:
    real = state.with_name("real")
    real.mkdir()
    state.symlink_to(real)
    start()
    assert StateDir(real).marker.exists()


def test_only_what_is_named_as_the_servers_own_is_deleted(
    state: Path, start: Start, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder" / "file").write_text("kept")
    (outside / "folder").chmod(0o755)
    StateDir(state).create()
    own = [state / "sandboxes" / f"sb-{'a' * 22}", state / "blobs" / ("0" * 64)]
    own[0].mkdir()
    own[1].write_text("old")
    foreign = [
        state / "sandboxes" / "mine",
        state / "sandboxes" / "sb-mine",
        state / "blobs" / "mine",
        state / "uploads" / "bl-mine",
    ]
    for path in foreign:
        path.write_text("kept")
    link = state / "sandboxes" / f"sb-{'b' * 22}"
    link.symlink_to(outside)
    for path in (*own[1:], *foreign):
        os.utime(path, (OLD, OLD))
    before = snapshot(outside)
    start()
    deadline = time.monotonic() + PATIENCE
    while any(path.exists() for path in own) and time.monotonic() < deadline:
        time.sleep(0.01)
    launcher.stop(state)
    wait_for_end(state)
    assert not [path for path in own if path.exists()]
    assert [path for path in foreign if not path.exists()] == []
    assert snapshot(outside) == before
    link.unlink()


def test_the_temporary_folder_of_a_sandbox_is_replaced(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder").chmod(0o755)
    folder = tmp_path / new_id("sb")
    rootfs.build(folder, [], {}, "", prefix=sys.prefix, isolated=False)
    temporary = (folder / "root" / "tmp").readlink()
    temporary.rmdir()
    temporary.symlink_to(outside)
    before = snapshot(outside)
    try:
        rootfs.remove(folder)
    finally:
        temporary.unlink()
    assert snapshot(outside) == before and not folder.exists()


def test_racing_commands_make_one_folder(state: Path) -> None:
    code = "import sys; from pathlib import Path; from modalrun.localmodal import launcher\n"
    code += "sys.stdin.read(); launcher.StateDir(Path(sys.argv[1])).create()"
    reader, writer = os.pipe()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(state)],
            stdin=reader,
            env={**os.environ, "PYTHONPATH": TREE},
        )
        for _ in range(6)
    ]
    os.close(reader)
    os.close(writer)
    assert [racer.wait(PATIENCE) for racer in racers] == [0] * 6
    assert processes_of(state) == []


FILES = ["server.json", "server.log", "faults.json", "server.lock", "start.lock"]


@pytest.mark.parametrize(
    "name", [*FILES, "state.sqlite3", "state.sqlite3-wal", "modal.toml", "logs"]
)
def test_a_named_pipe_in_a_marked_folder(tmp_path: Path, name: str) -> None:
    state = tmp_path / "state"
    StateDir(state).create()
    if name == "logs":
        (state / name).rmdir()
    (state / name).unlink(missing_ok=True)
    os.mkfifo(state / name)
    for use in (launcher.status, launcher.stop, launcher.ensure_running):
        with pytest.raises(UsageError, match=rf"{name} is no (regular file|folder)"):
            use(state)
    with pytest.raises(UsageError, match=name):
        list(launcher.stored(None, state))


@pytest.mark.parametrize("name", [*FILES, "control.sock"])
def test_a_folder_in_place_of_a_file(tmp_path: Path, name: str) -> None:
    StateDir(tmp_path / "state").create()
    (tmp_path / "state" / name).mkdir()
    with pytest.raises(UsageError, match=rf"{name} is no"):
        launcher.status(tmp_path / "state")


def test_nested_addresses(state: Path, start: Start) -> None:
    StateDir(state).create()
    for path in (StateDir(state).info_file, StateDir(state).faults_file):
        path.write_text("[" * 100_000)
    assert launcher.status(state) is None
    start()
