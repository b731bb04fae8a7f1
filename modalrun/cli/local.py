"""`modalrun local`: the local Modal server from the command line."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from modalrun.cli.options import Output, OutputOption

app = typer.Typer(
    help="The local Modal server: run sandboxes on this machine with the real Modal SDK and CLI, "
    "and no account. Images are not built: what runs is this machine's Python. Requested cpu, "
    "memory, gpu, region and cloud are recorded and shown, not enforced.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_COLOUR_TEXT = re.compile(r"\x1b\[[0-9;:]*m")
_COLOUR = re.compile(rb"\x1b\[[0-9;:]*m")


class Shell(str, Enum):
    """Shells that `local env` knows."""

    sh = "sh"
    fish = "fish"
    powershell = "powershell"


StateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="FOLDER",
        help="The server's state folder: sandboxes, logs, secrets. Default: $MODALRUN_LOCAL_STATE, "
        "or a folder of yours for state.",
        show_default=False,
    ),
]
IdleOption = Annotated[
    float | None,
    typer.Option(
        "--idle-timeout",
        metavar="SECONDS",
        min=0,
        help="End the server after so long without a running sandbox and without a call; 0 for "
        "never. Default: $MODALRUN_LOCAL_IDLE_TIMEOUT, or 900. Ignored when it already runs.",
        show_default=False,
    ),
]


@app.command()
def start(state_dir: StateDirOption = None, idle_timeout: IdleOption = None) -> None:
    """Start the server, if it does not run.

    It is started by itself when something needs it, and ends by itself when it is idle.
    """
    from modalrun.localmodal import launcher

    info = launcher.ensure_running(state_dir, idle_timeout=idle_timeout)
    typer.echo(f"The local Modal server runs at {info.url} (pid {info.pid}).", err=True)
    typer.echo('To use it with the Modal CLI and SDK: eval "$(modalrun local env)"', err=True)


@app.command()
def stop(state_dir: StateDirOption = None) -> None:
    """Stop the server. Running sandboxes are terminated; what is recorded stays."""
    from modalrun.localmodal import launcher

    stopped = launcher.stop(state_dir)
    typer.echo(
        "The local Modal server is stopped." if stopped else "The local Modal server does not run.",
        err=True,
    )


@app.command()
def status(
    state_dir: StateDirOption = None,
    output: Output = OutputOption.text,
) -> None:
    """Show the server and its running sandboxes; exit code 4 when it does not run.

    The cpu, memory, gpu, region and cloud of a sandbox are those that were requested. They are
    recorded and shown, not enforced.
    """
    from modalrun.localmodal import launcher

    found = launcher.status(state_dir)
    if output is OutputOption.json:
        typer.echo(json.dumps({"running_server": found is not None, **(found or {})}, indent=2))
    elif found is not None:
        _show(found)
    if found is None:
        typer.echo(
            "The local Modal server does not run; `modalrun local start` starts it.", err=True
        )
        raise typer.Exit(4)


def _show(found: dict[str, Any]) -> None:
    idle = found["idle_timeout_seconds"]
    rows = [
        ("url", found["url"]),
        ("pid", found["pid"]),
        ("version", found["version"]),
        ("state folder", found["state_dir"]),
        ("up", _duration(found["uptime_seconds"])),
        ("idle timeout", _duration(idle) if idle else "never"),
        ("preloaded", _preloaded(found["preload"])),
        ("apps", found["apps"]),
        ("sandboxes", f"{found['sandboxes']}, {len(found['running'])} running"),
    ]
    for name, value in rows:
        typer.echo(f"{name:<13} {value}")
    if found["running"]:
        typer.echo("\nRunning sandboxes (resources as requested; they are not enforced):")
    for sandbox in found["running"]:
        age = _duration(time.time() - sandbox["created_at"])
        typer.echo(f"  {sandbox['id']}  {sandbox['app']}  {sandbox['name'] or '-'}  {age}")
        asked = sandbox["requested"]
        parts = [
            f"{label} {asked[key]:g}" if isinstance(asked[key], float) else f"{label} {asked[key]}"
            for key, label in (
                ("cpu", "cpu"),
                ("memory_mib", "memory MiB"),
                ("gpu", "gpu"),
                ("cloud", "cloud"),
            )
            if asked[key]
        ]
        if asked["regions"]:
            parts.append(f"region {', '.join(asked['regions'])}")
        if parts:
            typer.echo(f"    {'; '.join(parts)}")


def _preloaded(found: dict[str, Any]) -> str:
    """What is in memory before a sandbox starts."""
    packages = sorted({module.partition(".")[0] for module in found.get("modules", ())})
    match found["state"]:
        case "ready":
            return f"{', '.join(packages)}, in {found['seconds']:.1f} s"
        case "loading":
            return f"{', '.join(packages)}, being imported"
        case "failed":
            return f"nothing: {found['problem']}"
        case _:
            return "nothing"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


@app.command()
def env(
    state_dir: StateDirOption = None,
    idle_timeout: IdleOption = None,
    shell: Annotated[Shell, typer.Option(help="The shell to write for.")] = Shell.sh,
    unset: Annotated[
        bool, typer.Option("--unset", help="Write what takes the variables away again.")
    ] = False,
) -> None:
    """Print the variables that point the Modal CLI and SDK to the local server.

    The server is started if it does not run. Use it as: eval "$(modalrun local env)"
    """
    from modalrun.localmodal import launcher

    if unset:
        names = launcher.VARIABLES
        forms = {
            Shell.sh: "unset {}",
            Shell.fish: "set -e {}",
            Shell.powershell: "Remove-Item -ErrorAction SilentlyContinue Env:{}",
        }
        for name in names:
            if name.lower() == "no_proxy":
                # It may have been the user's before; that this machine stays in it does no harm.
                continue
            typer.echo(forms[shell].format(name))
        return
    info = launcher.ensure_running(state_dir, idle_timeout=idle_timeout)
    for name, value in info.environ().items():
        typer.echo(_ASSIGNMENTS[shell](name, value))


def _sh(name: str, value: str) -> str:
    import shlex

    return f"export {name}={shlex.quote(value)}"


def _fish(name: str, value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"set -gx {name} '{quoted}'"


def _powershell(name: str, value: str) -> str:
    quoted = value.replace("'", "''")
    return f"$Env:{name} = '{quoted}'"


_ASSIGNMENTS: dict[Shell, Callable[[str, str], str]] = {
    Shell.sh: _sh,
    Shell.fish: _fish,
    Shell.powershell: _powershell,
}


@app.command()
def logs(
    sandbox: Annotated[
        str | None,
        typer.Argument(
            metavar="[SANDBOX]", help="A sandbox's id (sb-...). Without: the server's own log."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the sandbox or the server ends.")
    ] = False,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Begin each line with its time. Not with -f.")
    ] = False,
    state_dir: StateDirOption = None,
) -> None:
    """Print the stored output of a sandbox, stdout and stderr in order, or the server's own log.

    What is stored can be read whether or not the server runs.
    """
    from modalrun.localmodal import launcher

    if follow and launcher.running(state_dir) is not None:
        for part in launcher.follow(sandbox, state_dir):
            _write(part)
        return
    if sandbox is not None:
        _check_id(sandbox)
    for part in launcher.stored(sandbox, state_dir, timestamps=timestamps):
        _write(part)


@app.command()
def kill(
    sandboxes: Annotated[
        list[str], typer.Argument(metavar="SANDBOX...", help="Ids of sandboxes (sb-...).")
    ],
    state_dir: StateDirOption = None,
) -> None:
    """End sandboxes at once, as if somebody had terminated them on Modal.

    To try out what a run does that loses one of its sandboxes, as by `modalrun resume`. To end a
    run use `modalrun stop`. Exit code 4 when there is no such sandbox; one that has ended already
    is left as it is.
    """
    from modalrun.localmodal import launcher

    for sandbox in sandboxes:
        _check_id(sandbox)
    for sandbox in sandboxes:
        was_running = launcher.kill(sandbox, state_dir)
        said = "is killed" if was_running else "had ended already"
        typer.echo(f"The sandbox {sandbox} {said}.", err=True)


def _check_id(sandbox: str) -> None:
    from modalrun.errors import UsageError

    if not sandbox.startswith("sb-") or not sandbox[3:].isalnum():
        raise UsageError(f"'{sandbox}' is not a sandbox id; one begins with 'sb-'")


def _write(data: bytes) -> None:
    """To stdout, without colours; for a terminal, other controls are shown instead of obeyed."""
    if sys.stdout.isatty():
        text = data.decode("utf-8", "replace")
        data = "".join(
            char if char in "\n\t\r" or char.isprintable() else f"\\x{ord(char):02x}"
            for char in _COLOUR_TEXT.sub("", text)
        ).encode("utf-8", "replace")
    else:
        data = _COLOUR.sub(b"", data)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
