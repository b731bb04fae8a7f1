"""`modalrun local`: manage the local Modal server."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from modalrun.cli import completion
from modalrun.cli.options import Output, seconds_option
from modalrun.errors import UsageError
from modalrun.output.terminal import writer

app = typer.Typer(
    help="Manage the local Modal server, which needs no account.\n\nIt runs sandboxes on this"
    " machine for the real Modal SDK and CLI, and refuses what Modal refuses. Images are not built:"
    " sandboxes use this machine's Python, and its cores, memory and GPUs, whatever they request.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

StateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="FOLDER",
        help="State folder of the server: sandboxes, logs, secrets. Default: $MODALRUN_LOCAL_STATE,"
        " or your own folder for state.",
        show_default=False,
    ),
]
IdleOption = Annotated[
    str | None,
    typer.Option(
        "--idle-timeout",
        metavar="DURATION",
        help="Stop the server after this time without a running sandbox and without a call:"
        " seconds, or as in '2h'; 0: never. Default: $MODALRUN_LOCAL_IDLE_TIMEOUT, or 900. Ignored"
        " if it already runs.",
        show_default=False,
    ),
]
LenientOption = Annotated[
    bool,
    typer.Option(
        "--lenient",
        help="Accept GPU types, regions, sizes and image builder versions that the server's list of"
        " what Modal offers lacks. Also: $MODALRUN_LOCAL_LENIENT=1. Refused if it runs without.",
    ),
]

IsolatedOption = Annotated[
    bool,
    typer.Option(
        "--isolated-python",
        help="Install each image's packages with uv, so that a sandbox has the Python of its image"
        " and not this one. Also: $MODALRUN_LOCAL_ISOLATED_PYTHON=1. Refused if it runs without.",
    ),
]


@app.command()
def start(
    state_dir: StateDirOption = None,
    idle_timeout: IdleOption = None,
    lenient: LenientOption = False,
    isolated_python: IsolatedOption = False,
) -> None:
    """Start the server, unless it runs.

    Commands that need the server start it themselves, and it stops when it is idle.
    """
    from modalrun.localmodal import launcher

    info = launcher.ensure_running(
        state_dir,
        idle_timeout=seconds_option(idle_timeout, "--idle-timeout"),
        lenient=lenient,
        isolated_python=isolated_python,
    )
    writer.err(f"The local Modal server runs at {info.url} (pid {info.pid}).")
    folder = f" --state-dir {shlex.quote(str(state_dir))}" if state_dir else ""
    found = launcher.status(state_dir) or {}
    asked = {"lenient": lenient, "isolated_python": isolated_python}
    lacking = [name for name, value in asked.items() if value and not found.get(name, True)]
    if lacking:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in lacking)
        raise UsageError(
            f"The local Modal server was started without {options}, and goes on without.",
            hint=f"End it first, with its sandboxes: modalrun local stop{folder}",
        )
    writer.err(f'To use it with the Modal CLI and SDK: eval "$(modalrun local env{folder})"')


@app.command()
def stop(state_dir: StateDirOption = None) -> None:
    """Stop the server and its running sandboxes.

    The records and logs of sandboxes are kept.
    """
    from modalrun.localmodal import launcher

    found = launcher.status(state_dir)
    if not launcher.stop(state_dir):
        writer.err("The local Modal server does not run.")
        return
    ended = len(found["running"]) if found else 0
    were = "sandbox was" if ended == 1 else "sandboxes were"
    note = f" {ended} running {were} ended." if ended else ""
    writer.err(f"The local Modal server is stopped.{note}")


@app.command()
def status(state_dir: StateDirOption = None, output: Output = "text") -> None:
    """Show the server and its running sandboxes.

    The cpu, memory, gpu, region and cloud of a sandbox are those that were requested. They are
    recorded and shown, not enforced. The exit code is 4 if the server does not run.
    """
    from modalrun.localmodal import launcher
    from modalrun.output import local_text

    found = launcher.status(state_dir)
    if output == "json":
        document = {"running_server": found is not None, **(found or {})}
        writer.out_json(json.dumps(document, indent=2))
    elif found is not None:
        writer.out("\n".join(local_text.status_lines(found)), fit=True)
    if found is None:
        writer.err("The local Modal server does not run; 'modalrun local start' starts it.")
        raise typer.Exit(4)


@app.command()
def env(
    state_dir: StateDirOption = None,
    idle_timeout: IdleOption = None,
    shell: Annotated[
        Literal["sh", "fish", "powershell"], typer.Option(help="Shell to write for.")
    ] = "sh",
    unset: Annotated[
        bool, typer.Option("--unset", help="Print commands that remove the variables.")
    ] = False,
) -> None:
    """Print variables that point the Modal CLI and SDK to the server.

    The server is started unless it runs. Usage: eval "$(modalrun local env)"

    Port and token change with each start of the server, so do this again after a restart.
    modalrun's own commands find the server without it.
    """
    from modalrun.localmodal import certificates, launcher
    from modalrun.output import local_text

    if unset:
        state = launcher.StateDir(state_dir or launcher.default_state_dir())
        names = (*launcher.VARIABLES, *certificates.own_variables(state))
        lines = local_text.unset_lines(names, shell)
    else:
        info = launcher.ensure_running(
            state_dir, idle_timeout=seconds_option(idle_timeout, "--idle-timeout")
        )
        state = launcher.StateDir(info.state_dir)
        accepting = certificates.variables(state)
        for name in (name for name in certificates.VARIABLES if name not in accepting):
            writer.err(
                f"{name} stays as it is. For HTTPS to the encrypted ports of sandboxes add"
                f" {state.certificates / 'authority.pem'} to the file that it names."
            )
        lines = local_text.export_lines({**info.environ(), **accepting}, shell)
        writer.err(
            "The variables are valid until the local Modal server ends. Port and token of the next"
            " one are new: run this command again then."
        )
    writer.out("\n".join(lines))


@app.command()
def logs(
    sandbox: Annotated[
        str | None,
        typer.Argument(
            metavar="SANDBOX",
            autocompletion=completion.stored_sandboxes,
            help="Id of a sandbox (sb-...). Without it: the server's own log.",
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Wait for more until the sandbox or the server has ended."
        ),
    ] = False,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Begin each line with its time. Not with -f.")
    ] = False,
    state_dir: StateDirOption = None,
) -> None:
    """Print the output of a sandbox, or the server's log.

    The output is stdout and stderr in order. It is stored, and can be read without the server.
    """
    from modalrun.localmodal import launcher
    from modalrun.output.local_text import write_output

    if follow and launcher.running(state_dir) is not None:
        write_output(launcher.follow(sandbox, state_dir))
        return
    if sandbox is not None:
        _check_id(sandbox)
    write_output(launcher.stored(sandbox, state_dir, timestamps=timestamps))


@app.command()
def kill(
    sandboxes: Annotated[
        list[str],
        typer.Argument(
            metavar="SANDBOX",
            autocompletion=completion.running_sandboxes,
            help="Ids of sandboxes (sb-...).",
        ),
    ],
    state_dir: StateDirOption = None,
) -> None:
    """Kill sandboxes, as Modal does when one is terminated.

    Use it to test how a run handles the loss of a sandbox, such as with 'modalrun resume'. To end a
    run, use 'modalrun stop'. A sandbox that has ended already is left as it is. The exit code is 4
    if there is no such sandbox.
    """
    from modalrun.localmodal import launcher

    for sandbox in sandboxes:
        _check_id(sandbox)
    for sandbox in sandboxes:
        state = "is killed" if launcher.kill(sandbox, state_dir) else "had ended already"
        writer.err(f"The sandbox {sandbox} {state}.")


def _check_id(sandbox: str) -> None:
    if not sandbox.startswith("sb-") or not sandbox[3:].isalnum():
        raise UsageError(f"'{sandbox}' is not a sandbox id; one begins with 'sb-'")
