"""The commands of `modalrun local`, and the real `modal` command line against the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modalrun.cli.local import app as local
from modalrun.errors import NotFoundError, UsageError
from modalrun.localmodal import launcher

from .support import PATIENCE, TREE, Sdk, wait_for_end

runner = CliRunner()
LOCAL = [sys.executable, "-c", "from modalrun.cli.local import app; app()"]
# Starting `modal` takes more than a second, so one process runs several of its commands.
MODAL = """
import contextlib, io, json, sys
from modal.__main__ import main
said = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["modal", *command]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as end:
            assert not end.code, (command, end.code)
    said.append(out.getvalue())
print(json.dumps(said))
"""


def test_start_status_stop(state: Path) -> None:
    folder = ["--state-dir", str(state)]
    idle = runner.invoke(local, ["status", *folder])
    assert (idle.exit_code, idle.stdout) == (4, "")
    started = runner.invoke(local, ["start", *folder])
    assert (started.exit_code, started.stdout) == (0, "")
    info = launcher.running(state)
    assert info is not None
    assert info.url in started.stderr
    assert f'eval "$(modalrun local env --state-dir {state})"' in started.stderr
    shown = runner.invoke(local, ["status", *folder, "--output", "json"])
    found = json.loads(shown.stdout)
    assert (found["url"], found["pid"], found["running"]) == (info.url, info.pid, [])
    assert info.token_secret not in shown.output
    assert info.token_secret not in runner.invoke(local, ["status", *folder]).output
    stopped = runner.invoke(local, ["stop", *folder])
    assert (stopped.exit_code, stopped.stdout) == (0, "")
    assert stopped.stderr == "The local Modal server is stopped.\n"
    assert launcher.running(state) is None


def test_stop_says_how_many_sandboxes_it_has_ended(sdk: Sdk) -> None:
    sdk.create("sleep", "600")
    stopped = runner.invoke(local, ["stop", "--state-dir", str(sdk.info.state_dir)])
    said = "The local Modal server is stopped. 1 running sandbox was ended.\n"
    assert stopped.stderr == said


def test_status_shows_what_was_requested(sdk: Sdk) -> None:
    sandbox = sdk.create("sleep", "1000", gpu="T4", cpu=2, name="shown", region="us")
    text = runner.invoke(local, ["status", "--state-dir", str(sdk.info.state_dir)]).stdout
    assert sandbox.object_id in text
    assert "cpu 2; gpu T4; region us" in text
    assert "not enforced" in text


def test_kill(sdk: Sdk) -> None:
    folder = ["--state-dir", str(sdk.info.state_dir)]
    sandbox = sdk.create("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    for word in ("is killed", "had ended already"):
        done = runner.invoke(local, ["kill", *folder, sandbox.object_id])
        assert (done.exit_code, done.stdout) == (0, "")
        assert done.stderr == f"The sandbox {sandbox.object_id} {word}.\n"
        # As on Modal after a termination.
        assert sandbox.poll() == 137
    unknown = runner.invoke(local, ["kill", *folder, "sb-unknown"])
    assert isinstance(unknown.exception, NotFoundError)
    wrong = runner.invoke(local, ["kill", *folder, sandbox.object_id, "../stop"])
    assert isinstance(wrong.exception, UsageError)


def test_kill_without_a_server(state: Path) -> None:
    done = runner.invoke(local, ["kill", "--state-dir", str(state), "sb-1"])
    assert isinstance(done.exception, NotFoundError)
    assert launcher.running(state) is None


def test_env(state: Path) -> None:
    folder = ["--state-dir", str(state)]
    written = runner.invoke(local, ["env", *folder]).stdout
    done = subprocess.run(
        ["sh", "-c", f"{written}\nenv"], env={}, capture_output=True, text=True, check=True
    )
    values = dict(line.split("=", 1) for line in done.stdout.splitlines())
    info = launcher.running(state)
    assert info is not None
    assert info.environ().items() <= values.items()
    unset = runner.invoke(local, ["env", *folder, "--unset"]).stdout
    left = subprocess.run(
        ["sh", "-c", f"{written}\n{unset}\nenv"], env={}, capture_output=True, text=True, check=True
    )
    assert "MODAL_" not in left.stdout
    for shell in ("fish", "powershell"):
        assert info.url in runner.invoke(local, ["env", *folder, "--shell", shell]).stdout


def test_env_with_certificates_of_ones_own(state: Path) -> None:
    command, own = ["env", "--state-dir", str(state)], {"SSL_CERT_FILE": "/own.pem"}
    printed = runner.invoke(local, command, env={**own, "REQUESTS_CA_BUNDLE": None})
    assert "SSL_CERT_FILE" not in printed.stdout
    assert "REQUESTS_CA_BUNDLE" in printed.stdout
    assert printed.stderr.count("stays as it is") == 1
    assert "SSL_CERT_FILE stays as it is. For HTTPS to the" in printed.stderr
    authority = state.resolve() / "certificates" / "authority.pem"
    assert f"add {authority} to the file" in printed.stderr
    assert authority.exists()


def test_logs(sdk: Sdk) -> None:
    folder = ["--state-dir", str(sdk.info.state_dir)]
    sandbox = sdk.create("sh", "-c", "echo one; read x; echo two >&2")
    follower = subprocess.Popen(
        [*LOCAL, "logs", *folder, "-f", sandbox.object_id],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": TREE},
    )
    assert follower.stdout is not None
    assert follower.stdout.readline() == "one\n"
    sandbox.stdin.write("\n")
    sandbox.stdin.drain()
    assert follower.communicate(timeout=PATIENCE)[0] == "two\n"
    sandbox.wait()
    assert runner.invoke(local, ["logs", *folder, sandbox.object_id]).stdout == "one\ntwo\n"
    stamped = runner.invoke(local, ["logs", *folder, sandbox.object_id, "--timestamps"]).stdout
    assert [line.split(" ", 1)[1] for line in stamped.splitlines()] == ["one", "two"]
    assert f"serving on {sdk.info.url}" in runner.invoke(local, ["logs", *folder]).stdout
    unknown = runner.invoke(local, ["logs", *folder, "sb-unknown"])
    assert isinstance(unknown.exception, NotFoundError)
    wrong = runner.invoke(local, ["logs", *folder, "../x"])
    assert isinstance(wrong.exception, UsageError)
    launcher.stop(sdk.info.state_dir)
    assert runner.invoke(local, ["logs", *folder, sandbox.object_id]).stdout == "one\ntwo\n"


@pytest.mark.parametrize("follow", [False, True])
def test_the_server_log_ends_with_the_server(sdk: Sdk, follow: bool) -> None:
    state = sdk.info.state_dir
    follower = subprocess.Popen(
        [*LOCAL, "logs", "--state-dir", str(state), *(["-f"] if follow else [])],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": TREE},
    )
    assert follower.stdout is not None
    assert "serving on" in follower.stdout.readline()
    launcher.stop(state)
    wait_for_end(state)
    rest = follower.communicate(timeout=PATIENCE)[0]
    assert ("asked to stop" in rest) == follow


@pytest.fixture
def run_modal(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run the real `modal` CLI with the variables of `modalrun local env`; return its output."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*commands: str) -> list[str]:
        lines: list[str] = json.loads(
            sdk.script(MODAL, json.dumps([command.split() for command in commands]))
        )
        return lines

    return run


def test_modal_reads(sdk: Sdk, run_modal: Callable[..., list[str]]) -> None:
    app = sdk.app("cli")
    sandboxes = []
    for gpu in ("T4", None):
        sandbox = sdk.create("sh", "-c", f"echo from {gpu}; read x", app=app, gpu=gpu)
        assert next(iter(sandbox.stdout)) == f"from {gpu}\n"
        sandboxes.append(sandbox)
    tasks = [sandbox._get_task_id() for sandbox in sandboxes]
    apps, *logs, containers, secrets, _, environments, token = run_modal(
        "app list",
        "app logs cli",
        f"app logs {app.app_id} --since 1h",
        f"container logs {tasks[0]}",
        f"container logs {tasks[1]} --all",
        f"container logs {sandboxes[0].object_id} --tail 1",
        f"container logs {sandboxes[1].object_id}",
        "container list --json",
        "secret list",
        "environment update main --set-image-builder-version 2025.06",
        "environment list",
        "token info",
    )
    assert str(app.app_id) in apps and "deployed" in apps
    assert logs == ["from T4\nfrom None\n"] * 2 + ["from T4\n", "from None\n"] * 2
    assert sorted(c["container_id"] for c in json.loads(containers)) == sorted(tasks)
    assert "Secrets in environment 'main'" in secrets
    assert "main" in environments
    assert "2025.06" in environments
    assert sdk.info.token_id in token


def test_modal_writes(sdk: Sdk, run_modal: Callable[..., list[str]]) -> None:
    app = sdk.app("cli")
    first = sdk.create("sleep", "1000", app=app)
    second = sdk.create("sh", "-c", "echo x; sleep 1000", app=app, gpu="T4")
    follower = subprocess.Popen(
        [sys.executable, "-m", "modal", "app", "logs", "cli", "-f"],
        env={**os.environ, **sdk.info.environ()},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    assert follower.stdout.readline() == "x\n"
    *_, secrets, environments = run_modal(
        f"container stop {first._get_task_id()} --yes",
        "app stop cli --yes",
        "secret create mine KEY=value",
        "environment create dev",
        "secret list",
        "environment list",
    )
    assert "mine" in secrets
    assert "dev" in environments
    for sandbox in (first, second):
        sandbox.wait(raise_on_termination=False)
        assert sandbox.returncode == 137
    assert follower.communicate(timeout=PATIENCE) == ("", None)
    assert sdk.app("cli").app_id != app.app_id
