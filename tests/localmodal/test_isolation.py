"""A sandbox has a root of its own: what it sees of this machine, and what it cannot reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modal
import pytest
from modal.exception import ServerWarning

from modalrun.localmodal import launcher
from modalrun.localmodal.launcher import Preload
from modalrun.localmodal.sandbox import view
from modalrun.localmodal.server_info import UNISOLATED, ServerInfo

from .support import PATIENCE, TREE, Sdk, processes_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")

Backend = dict[str, Any]


def test_volumes_and_files_are_at_their_paths(sdk: Sdk, tmp_path: Path, backend: Backend) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "tool").write_text("#!/bin/sh\necho tool\n")
    (tmp_path / "tool").chmod(0o755)
    image = modal.Image.debian_slim()
    for place in ("/data/a.txt", "/etc/own/a.txt", "/opt/a.txt"):
        image = image.add_local_file(tmp_path / "a.txt", place)
    image = image.add_local_file(tmp_path / "tool", "/usr/local/bin/own-tool")
    volume = modal.Volume.from_name("kept", create_if_missing=True)
    code = "p = '/vol/x/y'; import os; os.makedirs('/vol/x'); open(p, 'w').write('written')"
    writer = sdk.create("python", "-c", code, volumes={"/vol": volume}, **backend)
    writer.wait()
    assert writer.returncode == 0, writer.stderr.read()
    script = "cat /vol/x/y /data/a.txt /etc/own/a.txt /opt/a.txt; own-tool; ls /bin/sh; pwd"
    options = {"volumes": {"/vol": volume}, "image": image, "workdir": "/usr/src/app"}
    reader = sdk.create("sh", "-c", script, **options, **backend)
    assert reader.stdout.read() == "writtena\na\na\ntool\n/bin/sh\n/usr/src/app\n"


def test_a_read_only_volume(sdk: Sdk) -> None:
    volume = modal.Volume.from_name("kept", create_if_missing=True)
    volumes = {"/vol": volume.read_only()}
    sandbox = sdk.create("touch", "/vol/new", volumes=volumes)
    assert "Read-only file system" in sandbox.stderr.read()


def test_nested_volumes_leave_nothing_behind(sdk: Sdk) -> None:
    outer, inner = (modal.Volume.from_name(n, create_if_missing=True) for n in ("out", "in"))
    both = {"/v": outer, "/v/sub": inner}
    for _ in range(2):
        sandbox = sdk.create("sh", "-c", "echo 1 >> /v/a && echo 2 >> /v/sub/b", volumes=both)
        sandbox.wait()
        assert sandbox.returncode == 0, sandbox.stderr.read()
    script = "cat /in/b; ls -A /out"
    check = sdk.create("sh", "-c", script, volumes={"/out": outer, "/in": inner})
    assert check.stdout.read() == "2\n2\na\n"


def test_the_network_is_blocked(sdk: Sdk, backend: Backend) -> None:
    code = """
import socket, urllib.request as u
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
print([name for _, name in socket.if_nameindex()])
u.urlopen("%s/")
"""
    command = ("python", "-c", code % sdk.info.url)
    blocked = sdk.create(*command, block_network=True, **backend)
    assert blocked.stdout.read() == "['lo']\n"
    assert "Connection refused" in blocked.stderr.read()
    assert "HTTP Error" in sdk.create(*command, **backend).stderr.read()


ESCAPES = """
import ctypes, glob, json, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
home, state, token, nursery = json.loads(sys.argv[-1])
found = {}

def tried(name, attempt):
    try:
        found[name] = attempt()
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"

def call(function, *arguments):
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "done"

tried("files", lambda: [p for p in (home, state, nursery) if os.path.exists(p)])
tried("user's", lambda: os.listdir("/home"))
tried("processes", lambda: sorted(p for p in os.listdir("/proc") if p.isdigit() and int(p) > 40))
tried("first root", lambda: os.listdir("/proc/1/root"))
tried("first cwd", lambda: os.listdir("/proc/1/cwd"))
tried("first memory", lambda: open("/proc/1/mem", "rb"))
tried("first environment", lambda: open("/proc/1/environ", "rb").read())
tried("debugger", lambda: call(libc.ptrace, 16, 1, 0, 0))
tried("pidfd", lambda: call(libc.syscall, 438, os.pidfd_open(1), 3, 0))
tried("descriptors", lambda: [
    os.readlink(f) for f in glob.glob("/proc/self/fd/*") if os.path.isdir(f) and int(f[14:]) < 3
])
tried("above", lambda: os.listdir("/" + "../" * 20) == os.listdir("/"))
tried("mount", lambda: call(libc.mount, b"x", b"/usr", b"tmpfs", 0, None))
tried("writable", lambda: call(libc.mount, None, b"/usr", None, 0x1020, None))
tried("namespace", lambda: call(libc.setns, os.open("/proc/1/ns/mnt", 0), 0))
tried("device", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)))
tried("core", lambda: open("/proc/sys/kernel/core_pattern", "w"))
for path in ("/dev/full", "/etc/passwd", "/proc/version", "/proc/net/dev", "/sys/kernel/notes"):
    # The mode that it has: nothing is changed where this succeeds.
    tried("mode of " + path, lambda: os.chmod(path, os.stat(path).st_mode & 0o777))
handle = ctypes.create_string_buffer(64)
tried("handle", lambda: call(libc.open_by_handle_at, os.open("/", 0), handle, 0))
inner = "umount /proc && touch /tmp/mark; umount -l /usr; mount -o remount,bind,rw /usr"
for options in (["-Urm"], ["-Um", "--keep-caps"]):
    subprocess.run(["unshare", *options, "sh", "-c", inner + "; touch /usr/mark; ls /home"])
tried("inner", lambda: os.path.exists("/usr/mark") or os.path.exists("/tmp/mark"))
tried("system", lambda: open("/usr/mark", "w"))
tried("python", lambda: open(os.path.join(sys.prefix, "mark"), "w"))
tried("secrets", lambda: len(open("/etc/shadow").read()))
tried("environment", lambda: token in str(os.environ))
found["warm"] = "colorsys" in sys.modules
print(json.dumps(found))
"""

KEPT_IN = {
    "files": [],
    "user's": [],
    "processes": [],
    "descriptors": [],
    "above": True,
    "inner": False,
    "environment": False,
}


@pytest.mark.parametrize("warm", [False, True])
def test_hostile_code_stays_inside(sdk: Sdk, tmp_path: Path, warm: bool) -> None:
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "__main__.py").write_text(ESCAPES)
    if warm:
        launcher.preload(sdk.info, Preload(modules=("colorsys",), programs=("probe",)))
    image = modal.Image.debian_slim().add_local_dir(tmp_path / "probe", "/app/probe")
    nursery = os.environ.get("MODALRUN_LOCAL_NURSERY", str(sdk.info.state_dir))
    # The home of a sandbox has a file of that name too.
    mine = next((p for p in Path.home().iterdir() if p.name != ".profile"), Path("/var/lib"))
    hidden = [str(mine), str(sdk.info.state_dir), sdk.info.token_secret, nursery]
    other = sdk.create("sleep", "100")
    sandbox = sdk.create(
        "python", "-m", "probe", json.dumps(hidden), image=image, workdir="/app", timeout=PATIENCE
    )
    text = sandbox.stdout.read()
    assert text, sandbox.stderr.read()
    found = json.loads(text)
    assert found.pop("warm") is warm
    assert {name: found.pop(name) for name in KEPT_IN} == KEPT_IN
    if found["secrets"] == 0:
        del found["secrets"]
    refused = ("PermissionError", "FileNotFoundError", "OSError")
    assert {k: v for k, v in found.items() if not str(v).startswith(refused)} == {}
    assert other.poll() is None
    other.terminate()


def test_a_shared_folder(
    start: Callable[..., ServerInfo],
    connect: Callable[[ServerInfo], Sdk],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It holds the state folder, which stays hidden; ZenML's variables share its store."""
    monkeypatch.setenv("MODALRUN_LOCAL_SHARED", str(tmp_path))
    zenml = tmp_path.parent / f"{tmp_path.name}-zenml" / "store"
    zenml.mkdir(parents=True)
    sdk = connect(start())
    script = 'echo 1 > "$0/new"; ls -A "$0/state"; echo 2 > "$1/db"; ls -A "$1/.."'
    variables = {"ZENML_STORE_URL": f"sqlite:///{zenml}/zenml.db"}
    sandbox = sdk.create("sh", "-c", script, str(tmp_path), str(zenml), env=variables)
    assert sandbox.stdout.read() == "store\n"
    assert (tmp_path / "new").read_text() == "1\n"
    assert (zenml / "db").read_text() == "2\n"
    assert (zenml / "db").stat().st_uid == os.getuid()


def test_without_isolation(
    start: Callable[..., ServerInfo],
    connect: Callable[[ServerInfo], Sdk],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MODALRUN_LOCAL_UNISOLATED", "1")
    sdk = connect(start())
    start()
    assert capfd.readouterr().err.count(UNISOLATED) == 1
    outer, inner = (modal.Volume.from_name(n, create_if_missing=True) for n in ("out", "in"))
    script = 'cd "$MODALRUN_LOCAL_ROOT/v"; echo 1 >> a; echo 2 >> sub/b; cat a sub/b; ls -A'
    for lines in ("1\n2\n", "1\n1\n2\n2\n"):
        sandbox = sdk.create("sh", "-c", script, volumes={"/v": outer, "/v/sub": inner})
        assert sandbox.stdout.read() == f"{lines}a\nsub\n", sandbox.stderr.read()
        sandbox.wait()
    with pytest.warns(ServerWarning) as caught:
        volumes: dict[Any, Any] = {"/v": outer.read_only(), "/w": inner}
        sdk.create("true", volumes=volumes, block_network=True).wait()
    why = "its sandboxes have no root of their own: MODALRUN_LOCAL_UNISOLATED is set"
    assert [str(one.message) for one in caught] == [
        f"The local Modal server ignores {what} ({why})"
        for what in ("'read_only' of the volume at /v", "'block_network'")
    ]
    found = launcher.status(sdk.info.state_dir)
    assert found is not None
    assert found["isolation"]["works"] is False


def test_a_machine_without_namespaces(state: Path, connect: Callable[[ServerInfo], Sdk]) -> None:
    limit = "echo 0 > /proc/sys/user/max_user_namespaces"
    code = "import sys; from pathlib import Path; from modalrun.localmodal import launcher;"
    code += "launcher.ensure_running(Path(sys.argv[1]))"
    script = f'{limit} && exec "$0" -c "$1" "$2"'
    command = ["unshare", "-Ur", "sh", "-c", script, sys.executable, code, str(state)]
    env = {**os.environ, "PYTHONPATH": TREE}
    if subprocess.run(command, env=env, timeout=PATIENCE, check=False).returncode:
        pytest.skip("this machine has no user namespaces at all")
    info = launcher.running(state)
    assert info is not None
    sdk = connect(info)
    volumes = {"/data": modal.Volume.from_name("v", create_if_missing=True)}
    for options in ({"volumes": volumes}, {"block_network": True}):
        with pytest.raises(modal.exception.InvalidError, match=r"max_user.*UNISOLATED=1"):
            sdk.create("true", **options)
    inside = {"/job/data": volumes["/data"]}
    sandbox = sdk.create("sh", "-c", "echo 1 > data/x; cat data/x", workdir="/job", volumes=inside)
    assert sandbox.stdout.read() == "1\n"


def test_what_others_may_not_read_is_hidden(sdk: Sdk, tmp_path: Path) -> None:
    """Root's rights to files would open it; a sandbox's own files are there all the same."""
    script = "cd /etc; find . -type f ! -perm -o=r ! -path './own/*' -exec head -c 1 {} +; "
    script += "find * -path own -prune -o -type d ! -perm -o=rx -print; cat passwd own/a"
    (tmp_path / "a").write_text("own\n")
    (tmp_path / "a").chmod(0o600)
    image = modal.Image.debian_slim().add_local_file(tmp_path / "a", "/etc/own/a")
    for options in ({}, {"image": image}):
        sandbox = sdk.create("sh", "-c", script, **options)
        expected = Path("/etc/passwd").read_text() + ("own\n" if options else "")
        assert sandbox.stdout.read() == expected


def test_hidden_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is private is hidden, but not a Python, a volume or a file of a sandbox in it."""
    for path in ("secret/own", "python/lib", "plain"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "plain" / "key").touch(mode=0o640)
    (tmp_path / "python" / "lib" / "private.py").touch(mode=0o600)
    for path in ("secret", "python"):
        (tmp_path / path).chmod(0o700)
    part = str(tmp_path)
    monkeypatch.setattr(view, "_SYSTEM", (part[1:],))
    monkeypatch.setattr(view, "_PRIVATE_PARTS", {part: 3})
    monkeypatch.setattr(sys, "path", [f"{part}/python/lib"])
    machine = view.Machine(home="/home/me", state="/state")

    def seen(own: list[str], volumes: dict[str, Path], prefix: str) -> list[tuple[str, str, bool]]:
        found = machine.view(Path("/r"), own, volumes, (), prefix=prefix, variables={})
        return [mount for mount in found.mounts if mount[1].startswith(part)]

    hidden = [("/dev/null", f"{part}/plain/key", False), ("", f"{part}/secret", True)]
    assert seen([], {}, "/usr") == [(part, part, False), *hidden]
    python = f"{part}/secret/own"
    assert seen([], {}, python) == [(part, part, False), *hidden, (python, python, False)]
    files = [f"{part}/plain/key", f"{part}/secret/own/file"]
    assert [path for _, path, _ in seen(files, {}, "/usr")] == [f"{part}/python"]
    volume = (str(tmp_path), part, True)
    assert seen([], {part: tmp_path}, "/usr") == [volume]
    shared = {"MODALRUN_LOCAL_SHARED": part, "MODALRUN_LOCAL_STACK": f"{part}/plain"}
    assert view.shared_folders(shared) == [part, f"{part}/plain"]


def test_the_python_of_an_image_below_a_shared_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is in the state folder, which stays hidden where a folder above it is shared."""
    state, python = tmp_path / "state", tmp_path / "state" / "pythons" / "one"
    python.mkdir(parents=True)
    monkeypatch.setenv(view.SHARED_VARIABLE, str(tmp_path))
    machine = view.Machine(home="/home/me", state=str(state))

    found = machine.view(Path("/r"), [], {}, (), prefix=str(python), variables={})

    assert [mount for mount in found.mounts if mount[1].startswith(str(tmp_path))] == [
        (str(tmp_path), str(tmp_path), True),
        ("", str(state), True),
        (str(python), str(python), False),
    ]


def test_no_volume_is_where_the_system_is(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    volume = modal.Volume.from_name("kept", create_if_missing=True)
    for path in ("/dev", "/dev/shm", "/proc/1", "/sys", "/etc", "/usr", "/bin", "/lib64"):
        with pytest.raises(modal.exception.InvalidError, match=f"mounted at {path}: .* /data"):
            sdk.create("true", volumes={path: volume})
    image = modal.Image.debian_slim().add_local_file(tmp_path / "a", "/proc/a")
    with pytest.raises(modal.exception.InvalidError, match="mounted at /proc/a: "):
        sdk.create("true", image=image)
    for path in ("/etc/data", "/usr/local/data", "/opt", "/mnt"):
        script = 'cd "$0" && ls -A && touch a && rm a'
        sandbox = sdk.create("sh", "-c", script, path, volumes={path: volume})
        assert sandbox.stdout.read() == ""
        sandbox.wait()
        assert sandbox.returncode == 0, sandbox.stderr.read()
    assert volume.listdir("/", recursive=True) == []


def test_the_reason_of_a_failed_start_is_told(sdk: Sdk, tmp_path: Path) -> None:
    """An image's file where each sandbox has a folder."""
    (tmp_path / "a").touch()
    image = modal.Image.debian_slim().add_local_file(tmp_path / "a", "/run")
    sandbox = sdk.create("true", image=image)
    sandbox.wait(raise_on_termination=False)
    assert "could not be started" in sandbox.stderr.read()
    assert "could not be started" in sdk.record(sandbox).exception


def test_the_end_of_the_first_process_ends_all(sdk: Sdk) -> None:
    sandbox = sdk.create("sh", "-c", "setsid sleep 1000 & echo started; sleep 1000")
    assert next(iter(sandbox.stdout)) == "started\n"
    sandbox.terminate()
    sandbox.wait(raise_on_termination=False)
    assert not [p for p in processes_of(sdk.info.state_dir) if "1000" in p.cmdline()]


def test_a_login_shell_is_as_in_an_image(sdk: Sdk) -> None:
    made = "cd /mnt; mkdir a /home/b /media/c /srv/d"
    text = f"python -W ignore -c 'import modal, sys; print(sys.prefix)'; {made}"
    sandbox = sdk.create("bash", "-lc", text)
    sandbox.wait()
    assert (sandbox.stdout.read(), sandbox.stderr.read()) == (f"{sys.prefix}\n", "")
