"""Give the help of each command examples and its page of the docs."""

from __future__ import annotations

import typer

from modalrun import DOCS

EXAMPLES: dict[str, tuple[str, ...]] = {
    "submit": (
        "configuration.md",
        "submit training.yaml --param rate=0.2 --gpu A100",
        "submit training.py:training --target local",
    ),
    "plan": (
        "configuration.md#money",
        "plan training.yaml --explain",
        "plan training.yaml --files",
    ),
    "compile": (
        "configuration.md#compiled-deployments",
        "compile training.yaml --output deployment.json",
    ),
    "doctor": ("troubleshooting.md", "doctor training.yaml"),
    "smoke": ("first-cloud-run.md#5-smoke", "smoke --gpu T4"),
    "status": ("status.md", "status latest --watch", "status 0d1f5b62 --output json"),
    "logs": ("logs.md", "logs latest --follow", "logs 0d1f5b62 --step 'train*' --tail 100"),
    "report": ("report.md", "report latest --open", "report 0d1f5b62 --output run.html"),
    "open": ("report.md#modalrun-open-run", "open latest", "open 0d1f5b62 modal"),
    "exec": ("exec.md", "exec latest", "exec 0d1f5b62 --step train -- nvidia-smi"),
    "list": ("status.md#modalrun-list", "list --state failed --since 2d"),
    "advise": ("usage.md#modalrun-advise", "advise training", "advise training --runs 20 --write"),
    "reconcile": ("status.md", "reconcile 0d1f5b62"),
    "stop": ("modes.md#stop", "stop 0d1f5b62", "stop 0d1f5b62 --force"),
    "resume": ("modes.md#resume", "resume 0d1f5b62"),
    "rerun": (
        "rerun.md",
        "rerun latest",
        "rerun 0d1f5b62 --from train --param rate=0.2 --gpu A100",
        "rerun 0d1f5b62 --new-code --plan",
    ),
    "init": ("first-cloud-run.md", "init"),
    "local start": ("local-server.md", "local start --idle-timeout 2h"),
    "local stop": ("local-server.md", "local stop"),
    "local status": ("local-server.md", "local status"),
    "local env": ("local-server.md#variables", 'eval "$(modalrun local env)"'),
    "local logs": ("local-server.md", "local logs sb-01JX"),
    "local kill": ("local-server.md", "local kill sb-01JX"),
}
"""Command -> the page of the docs, and its examples."""


def add_to(app: typer.Typer, above: str = "") -> None:
    """Add examples and docs to the help of all commands.

    Args:
        app: Has the commands.
        above: The command that they belong to, with a blank.
    """
    for command in app.registered_commands:
        name = f"{above}{command.name or getattr(command.callback, '__name__', '')}"
        page, *examples = EXAMPLES[name]
        lines = [one if "modalrun" in one else f"modalrun {one}" for one in examples]
        text = "\n".join(f"  {line}" for line in lines)
        # The mark keeps the lines as they are.
        command.epilog = f"\b\nExamples:\n{text}\n\n\b\nDocs:\n  {DOCS}/{page}"
    for group in app.registered_groups:
        if group.typer_instance is not None:
            add_to(group.typer_instance, f"{above}{group.name} ")
