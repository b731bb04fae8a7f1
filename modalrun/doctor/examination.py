"""Run every check of `modalrun doctor` side by side, until a deadline.

ZenML and Modal are checked in threads: neither can delay the other, and a call that never returns
is left behind when the time is over. Nothing is created that is not removed again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

from modalrun.doctor.findings import Findings, Report
from modalrun.doctor.zenml_checks import ZenMLChecks
from modalrun.errors import ConnectionLostError, ModalrunError, UsageError
from modalrun.localmodal import launcher
from modalrun.localmodal.launcher import STATE_VARIABLE
from modalrun.modal_api import account_check
from modalrun.modal_api.account_check import AccountNeeds
from modalrun.modal_api.client import load_sdk
from modalrun.run.run_plan import Target
from modalrun.spec.run_spec import RunSpec, load_spec, target_of_spec
from modalrun.submit import prepare
from modalrun.util import background, check, compatibility, garbage_collection
from modalrun.util.check import LABELS, Finding
from modalrun.zenml_api import config_files, process

LIMIT_SECONDS = 30.0
"""How long a check may take, counted from the import of ZenML."""

IMPORT_SECONDS = 120.0
"""How long the import of ZenML may take: 4 s of CPU, on a machine that may be busy."""

NEEDS_SECONDS = 15.0
"""How long the check of Modal waits, after that import, for what the stack and the spec name."""

RecordClock = Callable[[float | None], None]

CheckAccount = Callable[[AccountNeeds, RecordClock], str]
"""Checks a Modal account, records its clock, and returns the message of the finding."""


def examine(spec_path: Path | None, target: Target | None) -> Report:
    """Run every check; none is left out because another one fails.

    The exit code of the report is that of the first problem.

    Args:
        spec_path: A run spec or deployment file, which is checked as well.
        target: Where a run would go, instead of what the spec says; "modal" if neither says.
    """
    began = time.monotonic()
    spec: RunSpec | None = None
    spec_finding: Finding | None = None
    if spec_path is not None:
        try:
            spec = prepare.with_file_values(load_spec(spec_path, target=target))
            spec_finding = Finding("spec", "ok", str(spec.source.path))
        except ModalrunError as error:
            spec_finding = Finding.of_error("spec", error)
    target = target or (spec.target if spec else target_of_spec(spec_path))
    omitted = {"local_server" if target == "modal" else "modal_account"}
    omitted |= {"spec", "pipeline", "source"} if spec_path is None else set()
    findings = Findings(name for name in LABELS if name not in omitted)
    if spec_finding is not None:
        findings.put(spec_finding)
    if spec is None:
        findings.skip(("pipeline", "source"), "the run spec is a problem")
    for finding in compatibility.installed():
        findings.put(finding)
    # Before a copy of the configuration may take its place.
    check_configuration(findings)
    with (
        tempfile.TemporaryDirectory(prefix="modalrun-doctor-") as scratch,
        _zenml_unchanged(Path(scratch)),
        _account_check(target, Path(scratch)) as account,
        garbage_collection.paused(),
    ):
        run_checks(findings, ZenMLChecks(findings, spec, target), account)
    late = ConnectionLostError(
        f"not done within {LIMIT_SECONDS:g} s: a server answers late, or the pipeline's import"
        " takes long"
    )
    found = findings.complete(late)
    return Report(target, found, time.monotonic() - began, check.exit_code(found))


def check_configuration(findings: Findings) -> None:
    """Check ZenML's configuration: ZenML replaces a damaged one by a new one."""
    try:
        config_files.require_readable()
    except UsageError as error:
        findings.put(Finding.of_error("zenml_server", error))


def run_checks(findings: Findings, zenml: ZenMLChecks, check_account: CheckAccount) -> None:
    """Check ZenML and Modal in threads, until both have answered or the time is over."""

    def check_modal() -> None:
        name = "modal_account" if zenml.target == "modal" else "local_server"
        zenml.imported.wait(IMPORT_SECONDS)
        try:
            needs = zenml.needs.result(NEEDS_SECONDS)
        except FutureTimeoutError:
            needs = AccountNeeds()
        try:
            message = check_account(needs, lambda ahead: findings.record_clock("Modal", ahead))
            findings.put(Finding(name, "ok", message))
        except Exception as error:
            findings.put(Finding.of_error(name, error))

    for part in (check_modal, zenml.run):
        threading.Thread(target=part, daemon=True).start()
    zenml.imported.wait(IMPORT_SECONDS)
    findings.wait(LIMIT_SECONDS)


@contextlib.contextmanager
def _zenml_unchanged(scratch: Path) -> Iterator[None]:
    """Keep ZenML from changing the user's configuration, or from creating one."""
    if not (config_files.folder() / "config.yaml").is_file():
        os.environ[config_files.CONFIG_PATH] = str(scratch / "zenml")
        yield
        return
    os.environ[config_files.DISABLE_MIGRATION] = "true"
    with process.protected_configuration():
        yield


@contextlib.contextmanager
def _account_check(target: Target, scratch: Path) -> Iterator[CheckAccount]:
    """Provide the check of the Modal account, or of the local Modal server.

    If the user's local server does not run, one is started in the scratch folder, and stopped.
    """
    # Before the threads start: two threads that import circular packages can fail.
    with contextlib.suppress(Exception):
        load_sdk()
    check_account = functools.partial(account_check.check_account, target)
    if target == "modal":
        yield check_account
        return
    running = unusable = None
    try:
        state = launcher.default_state_dir()
        answer = launcher.status()
        if answer and answer.get("python") == sys.prefix:
            running = launcher.running()
    except ModalrunError as error:
        unusable = error
    scratch_state = scratch / "local-modal"
    if running is None:
        os.environ[STATE_VARIABLE] = str(scratch_state)
        # It takes as long to start as ZenML to import. An error shows up where it is used.
        background.begin(launcher.ensure_running)

    def check_server(needs: AccountNeeds, record_clock: RecordClock) -> str:
        message = check_account(needs, record_clock)
        isolation = (launcher.status() or {}).get("isolation", {})
        if isolation.get("problem"):
            message += f"; sandboxes are not isolated: {isolation['problem']}"
        if running is not None:
            return f"runs at {running.url}; {message}"
        if unusable is not None:
            raise unusable
        folder = next(one for one in (state, *state.parents) if one.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ModalrunError(
                f"its state folder {state} can't be written to",
                hint=f"Set {STATE_VARIABLE} to a folder that you can write to.",
            )
        return f"starts when it is needed; {message}"

    try:
        yield check_server
    finally:
        if scratch_state.exists():
            launcher.stop(scratch_state)
