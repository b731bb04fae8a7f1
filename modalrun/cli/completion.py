"""Say what a shell offers at the Tab key: quickly, and in silence where nothing can be read."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterable

import typer

Offers = Iterable[tuple[str, str]]
"""Words, each with a description, which may be empty."""

_OFFERED = re.compile(r"(?!.*:::)[A-Za-z0-9_.][A-Za-z0-9_.:@+=,/-]*")
"""What a shell may get. Zsh evaluates what it is offered, a dash begins an option, and for
PowerShell three colons begin the description."""

_UNSAFE_HELP = re.compile(r"[^A-Za-z0-9 ,._-]")
"""What no description of an offer has; zsh evaluates it as well."""

_MOST = 30
"""Sandboxes that are offered."""


def _offer(
    find: Callable[[typer.Context, str], Offers],
) -> Callable[[typer.Context, str], list[tuple[str, str]]]:
    """Offer the words that begin with what was typed and that a shell can take."""

    @functools.wraps(find)
    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        # A shell shows what is printed in the middle of the command line.
        with contextlib.suppress(Exception):
            found += find(ctx, incomplete)
        offered = [
            (value, _UNSAFE_HELP.sub("_", description))
            for value, description in found
            if value.startswith(incomplete) and _OFFERED.fullmatch(value)
        ]
        if not offered and os.environ.get("_MODALRUN_COMPLETE") == "complete_bash":
            # Without an offer, bash lists the files of the folder (`complete -o default`).
            return [(incomplete or " ", "")]
        return offered

    return complete


@_offer
def runs(ctx: typer.Context, incomplete: str) -> Offers:
    """Offer RUN: names, ids once a digit is typed, each with its status; to stop, what is not over.

    A name that a shell could take for more than a word is not offered; its run's id is.
    """
    from modalrun.run.records import FINISHED, LATEST
    from modalrun.zenml_api.records import completion

    stops = ctx.info_name == "stop"
    if not stops:
        yield LATEST, "the newest run"
    for run in completion.recent_runs():
        if stops and run.status in FINISHED:
            continue
        is_word = _OFFERED.fullmatch(run.name) is not None
        if is_word:
            yield run.name, run.status
        if incomplete or not is_word:
            yield run.id, f"{run.name}, {run.status}"


@_offer
def steps(ctx: typer.Context, incomplete: str) -> Offers:
    """Offer the steps of the run that RUN means, of the newest one where it is not typed yet."""
    from modalrun.run.records import LATEST
    from modalrun.zenml_api.records import completion

    # An option without its value, as before the Tab key, keeps Click from reading RUN.
    typed = ctx.params.get("run") or next(iter(ctx.args), LATEST)
    for run in completion.recent_runs():
        if typed in (LATEST, run.name) or run.id.startswith(typed):
            # A child pipeline runs again as a whole.
            whole = ctx.info_name == "rerun"
            return [(name, "") for name in completion.steps_of(run.id, of_children=not whole)]
    return []


@_offer
def pipelines(ctx: typer.Context, incomplete: str) -> Offers:
    """Offer the pipelines of recent runs."""
    from modalrun.zenml_api.records import completion

    return [(name, "") for name in dict.fromkeys(run.pipeline for run in completion.recent_runs())]


@_offer
def running_sandboxes(ctx: typer.Context, incomplete: str) -> Offers:
    """Offer the running sandboxes of the local Modal server, without those that are typed."""
    from modalrun.localmodal import launcher

    found = launcher.status(ctx.params.get("state_dir")) or {"running": []}
    typed = ctx.params.get("sandboxes") or ()
    return [(one["id"], one["name"] or "") for one in found["running"] if one["id"] not in typed]


@_offer
def stored_sandboxes(ctx: typer.Context, incomplete: str) -> Offers:
    """Offer the newest sandboxes whose output the local Modal server has stored."""
    from modalrun.localmodal import launcher

    found = launcher.stored_sandboxes(ctx.params.get("state_dir"))
    return [(sandbox, "") for sandbox in found[:_MOST]]


@_offer
def states(ctx: typer.Context, incomplete: str) -> Offers:
    """Offer ZenML's statuses of a run."""
    from modalrun.run.records import STATES

    return [(state, "") for state in STATES]


@_offer
def gpus(ctx: typer.Context, incomplete: str) -> Offers:
    """Offer GPU types, after a comma one more."""
    from modalrun.util.modal_catalog import GPU_ALIASES, GPUS_PER_SANDBOX

    return _one_more((*GPUS_PER_SANDBOX, *GPU_ALIASES), incomplete)


@_offer
def regions(ctx: typer.Context, incomplete: str) -> Offers:
    """Offer Modal's regions, after a comma one more."""
    from modalrun.util.modal_catalog import REGIONS

    return _one_more(REGIONS, incomplete)


@_offer
def clouds(ctx: typer.Context, incomplete: str) -> Offers:
    """Offer cloud providers."""
    from modalrun.util.modal_catalog import CLOUDS

    return [(cloud, "") for cloud in CLOUDS]


def _one_more(words: Iterable[str], incomplete: str) -> Offers:
    before, comma, _ = incomplete.rpartition(",")
    return [(f"{before}{comma}{word}", "") for word in words]
