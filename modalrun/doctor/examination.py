"""What `modalrun doctor` does: every check that can be made before a run, side by side.

ZenML is looked at in this process and Modal in a second one, for most of the time goes into
importing the two. Nothing is created but what is removed again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modalrun.errors import ConnectionLostError, ModalrunError
from modalrun.localmodal import launcher
from modalrun.localmodal.launcher import STATE_VARIABLE
from modalrun.modal_api.account_check import CONNECT_SECONDS, Account, CheckRequest
from modalrun.plan.image_recipe import Named
from modalrun.plan.model import Plan
from modalrun.plan.stack import problems_on_modal, wrong_stack
from modalrun.spec.run_spec import RunSpec, Target, load_spec, written_target
from modalrun.submit import prepare
from modalrun.submit.runtime_packages import engine_packages
from modalrun.util import check as findings
from modalrun.util import compatibility, garbage_collection, reachability
from modalrun.util.check import LABELS, Finding
from modalrun.zenml_api import config_files, process

LIMIT_SECONDS = 30.0
"""When a check counts as one that never ends, from when ZenML is imported."""

IMPORT_SECONDS = 120.0
"""When the import of ZenML does; 4 s of CPU, on a machine that may have much else to do."""

PATIENCE_SECONDS = 15.0
"""How long Modal's side waits for what ZenML, once imported, says of the stack and the spec."""


@dataclass(frozen=True)
class Report:
    """What all checks have found.

    Attributes:
        target: Where a run would go.
        findings: One for each check, in the order of `findings.LABELS`.
        seconds: How long it took.
    """

    target: Target
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """That of the first problem; 0 without one."""
        return findings.exit_code(self.findings)


def examine(spec_path: Path | None, target: Target | None) -> Report:
    """Make every check; a check that fails never keeps another from being made.

    Args:
        spec_path: A run spec or deployment file, to be checked as well.
        target: Where a run would go, above what the spec says; "modal" where neither does.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="modalrun-doctor-") as scratch:
        examination = _Examination(spec_path, target, Path(scratch))
        found = examination.run()
        return Report(examination.target, tuple(found), time.monotonic() - began)


class _Examination:
    """One examination. Its parts run in threads that nobody waits for once the time is over."""

    def __init__(self, spec_path: Path | None, target: Target | None, scratch: Path) -> None:
        self._scratch = scratch
        self._news = threading.Condition()
        self._found: dict[str, Finding] = {}
        self._clocks: dict[str, float] = {}
        self._asked: set[str] = set()
        self._order: CheckRequest | None = None
        self._deadline = time.monotonic() + IMPORT_SECONDS
        self._spec: RunSpec | None = None
        if spec_path is not None:
            try:
                self._spec = prepare.with_source_root(load_spec(spec_path, target=target))
            except ModalrunError as error:
                self._put(Finding.of_error("spec", error))
            else:
                self._put(Finding("spec", "ok", str(spec_path)))
        self.target: Target = target or (
            self._spec.target if self._spec else written_target(spec_path)
        )
        self._modal_check = "modal_account" if self.target == "modal" else "local_server"
        left_out = {"local_server" if self.target == "modal" else "modal_account"}
        left_out |= set() if spec_path else {"spec"}
        left_out |= set() if self._spec else {"pipeline"}
        self._checks = [check for check in LABELS if check not in left_out]

    def run(self) -> list[Finding]:
        """Make the checks; returns their findings in order."""
        copy = self._protect_zenml()
        modal = _ModalProcess(self.target, self._scratch)
        try:
            for part in (self._modal, self._zenml):
                threading.Thread(target=part, args=[modal], daemon=True).start()
            with garbage_collection.paused():
                for finding in compatibility.installed():
                    self._put(finding)
                self._wait()
        finally:
            modal.close()
            if copy is not None:
                shutil.rmtree(copy, ignore_errors=True)
        with self._news:
            self._found["clock"] = findings.clock(self._clocks)
            for check in self._checks:
                why = f"no answer within {LIMIT_SECONDS:g} s"
                late = Finding.of_error(check, ConnectionLostError(why))
                self._found.setdefault(check, late)
            return findings.in_order(self._found.values())

    def _protect_zenml(self) -> Path | None:
        """Keep ZenML from changing the user's configuration, or from making one."""
        os.environ[config_files.DISABLE_MIGRATION] = "true"
        if (config_files.folder() / "config.yaml").is_file():
            return config_files.protect()
        del os.environ[config_files.DISABLE_MIGRATION]
        os.environ[config_files.CONFIG_PATH] = str(self._scratch / "zenml")
        return None

    def _wait(self) -> None:
        """Until both sides have answered and every check has a finding, or the time is over."""
        wanted = {check for check in self._checks if check != "clock"}
        with self._news:
            self._wait_until(lambda: wanted <= self._found.keys() and len(self._asked) == 2)

    def _wait_until(self, true: Callable[[], bool], before: float = 0.0) -> None:
        """Wait for news that make something true; at most until so long before the deadline."""
        while not true():
            left = self._deadline - before - time.monotonic()
            if left <= 0:
                return
            self._news.wait(left)

    def _put(self, finding: Finding) -> None:
        with self._news:
            self._found.setdefault(finding.check, finding)
            self._news.notify_all()

    def _answered(self, who: str, ahead: float | None) -> None:
        """One of the two servers has been asked for its time."""
        with self._news:
            if ahead is not None:
                self._clocks[who] = ahead
            self._asked.add(who)
            self._news.notify_all()

    def _skip(self, checks: tuple[str, ...], why: str) -> None:
        for check in checks:
            if check in self._checks:
                self._put(Finding(check, "skipped", f"not checked: {why}"))

    # Modal

    def _modal(self, modal: _ModalProcess) -> None:
        with self._news:
            self._wait_until(lambda: self._order is not None, LIMIT_SECONDS - PATIENCE_SECONDS)
            order = self._order or CheckRequest()
        account = modal.ask(order)
        finding = account.finding
        if finding.state == "ok" and self.target == "local":
            finding = modal.local_server(finding)
        self._put(finding)
        self._answered("Modal", account.ahead)

    def _send(self, order: CheckRequest) -> None:
        with self._news:
            self._order = self._order or order
            self._news.notify_all()

    # ZenML

    def _zenml(self, _modal: _ModalProcess) -> None:
        try:
            if self._zenml_server():
                self._with_zenml()
            else:
                self._deadline = time.monotonic() + LIMIT_SECONDS
                why = "the ZenML server can't be asked"
                self._skip(("zenml_login", "stack", "artifact_store", "pipeline"), why)
        except Exception as error:
            # Nobody waits for a check that can't be made any more.
            for check in ("zenml_server", "zenml_login", "stack", "artifact_store", "pipeline"):
                if check in self._checks:
                    self._put(Finding.of_error(check, error))
        finally:
            self._put(self._checked("image", self._default_image))
            self._send(CheckRequest())
            self._answered("ZenML", None)

    def _zenml_server(self) -> bool:
        """Whether ZenML's server, if there is one, is there."""
        url, client = config_files.store_url(), metadata.version("zenml")
        if urlsplit(url).scheme not in {"http", "https"}:
            self._put(_database(url, client))
            self._answered("ZenML", None)
            return True
        problem = reachability.connection_problem(url, CONNECT_SECONDS)
        if problem is not None:
            error = ConnectionLostError(
                f"{url} can't be reached: {problem}", hint="Check the network and 'zenml status'."
            )
            self._put(Finding.of_error("zenml_server", error))
            self._answered("ZenML", None)
            return False
        version: str | None = None
        ahead: float | None = None
        try:
            answer = reachability.ask(f"{url.rstrip('/')}/api/v1/info", seconds=CONNECT_SECONDS)
            ahead = answer.ahead
            version = json.loads(answer.body).get("version")
        except OSError as error:
            if _is_silence(error):
                silent = ConnectionLostError(
                    f"{url} takes connections, but does not answer within {CONNECT_SECONDS:g} s",
                    hint="Look whether it is overloaded, or only just starting, and try again.",
                )
                self._put(Finding.of_error("zenml_server", silent))
                self._answered("ZenML", None)
                return False
            # ZenML's own client may know more of the way, certificates for one: its login says.
            message = f"{url} takes connections, but its version could not be read: {error}"
            self._put(Finding("zenml_server", "warning", message, "Look at it: zenml status"))
        except (ValueError, AttributeError):
            # Something answers, in words that are not ZenML's.
            pass
        known = compatibility.versions_of("zenml")
        self._put(findings.server_version(url, version, client, known))
        self._answered("ZenML", ahead)
        return True

    def _with_zenml(self) -> None:
        root = self._spec.source_root if self._spec else Path.cwd()
        process.prepare_process(root)
        from modalrun.zenml_api import health

        with self._news:
            self._deadline = time.monotonic() + LIMIT_SECONDS
            self._news.notify_all()
        login = self._checked("zenml_login", health.login)
        self._put(login)
        if login.state == "problem":
            why = "ZenML can't be asked"
            self._skip(("stack", "artifact_store", "pipeline"), why)
            return
        token: tuple[str, str] | None = None
        stack: Any = None
        compiled_for = self._spec is not None and self._spec.deployment is not None
        if not compiled_for:
            try:
                stack, token = health.stack_of(self._spec)
                self._look_at(stack)
            except Exception as error:
                self._put(health.problem_of("stack", error))
        plan: Plan | None = None
        if self._spec is not None:
            try:
                compiled = prepare.load_deployment(self._spec)
                stack, token = compiled.stack, compiled.credentials
                plan = prepare.plan_deployment(compiled.deployment, compiled.facts, self._spec).plan
                self._put(_pipeline(plan))
            except Exception as error:
                problem = health.problem_of("pipeline", error)
                stacks = self._found.get("stack")
                if stacks is not None and stacks.message == problem.message:
                    self._skip(("pipeline",), "the stack is a problem")
                self._put(problem)
            if compiled_for and stack is not None:
                self._look_at(stack)
        self._send(_order(plan, token if self.target == "modal" else None))
        if stack is None:
            self._skip(("stack", "artifact_store"), "there is no stack to look at")
        if plan is not None and stack is not None and self.target == "modal":
            self._put(self._checked_images(plan, stack))

    def _look_at(self, stack: Any) -> None:
        """Check a stack, and its artifact store in a thread of its own."""
        from modalrun.zenml_api import health
        from modalrun.zenml_api.stacks import stack_facts

        def round_trip() -> None:
            self._put(self._checked("artifact_store", lambda: health.round_trip(stack)))

        threading.Thread(target=round_trip, daemon=True).start()
        facts = stack_facts(stack)
        problems = problems_on_modal(facts) if self.target == "modal" else []
        if problems:
            self._put(Finding.of_error("stack", wrong_stack(facts, problems)))
            return
        parts = ", ".join(f"{one.kind.replace('_', ' ')} {one.name}" for one in facts.components)
        self._put(Finding("stack", "ok", f"'{facts.name}': {parts}"))

    def _checked(self, check: str, make: Callable[[], str]) -> Finding:
        try:
            return Finding(check, "ok", make())
        except Exception as error:
            if "modalrun.zenml_api.errors" not in sys.modules:
                return Finding.of_error(check, error)
            from modalrun.zenml_api import health

            return health.problem_of(check, error)

    def _checked_images(self, plan: Plan, stack: Any) -> Finding:
        """Of several images the first that is not in order."""
        from modalrun.zenml_api import health

        docker = any(shutil.which(command) for command in ("docker", "podman"))
        try:
            found = [health.check_image(one, stack, docker=docker) for one in plan.images.values()]
        except Exception as error:
            return health.problem_of("image", error)
        wrong = [finding for finding in found if finding.state != "ok"]
        said = dict.fromkeys(finding.message for finding in found)
        return wrong[0] if wrong else Finding("image", "ok", "; ".join(said))

    def _default_image(self) -> str:
        """What stands for the image where no plan says more."""
        if self.target == "local":
            return f"none is built: sandboxes run this Python, {sys.executable}"
        return f"made from the Docker settings, with {', '.join(engine_packages())}"


class _ModalProcess:
    """The process that looks at Modal."""

    def __init__(self, target: Target, scratch: Path) -> None:
        self._target = target
        self._state = scratch / "local-modal"
        self._running: launcher.ServerInfo | None = None
        environment = dict(os.environ)
        # It stands in another folder, whose modules must not be taken for packages.
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(p).absolute()) for p in sys.path if p)
        if target == "local":
            answer = launcher.status()
            if answer is not None and answer.get("python") == sys.prefix:
                self._running = launcher.running()
            if self._running is None:
                environment[STATE_VARIABLE] = str(self._state)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "modalrun.modal_api.account_check", target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=environment,
        )

    def ask(self, order: CheckRequest) -> Account:
        """Send the order and wait for the answer."""
        answer, talk = self._process.communicate(order.to_line())
        try:
            return Account.from_line(answer)
        except (ValueError, KeyError, TypeError):
            check = "modal_account" if self._target == "modal" else "local_server"
            last = (talk.strip().splitlines() or [f"exit code {self._process.returncode}"])[-1]
            error = ModalrunError(f"the Modal SDK could not be used: {last}")
            return Account(Finding.of_error(check, error), None)

    def local_server(self, finding: Finding) -> Finding:
        """The finding on a local Modal server that answers, with where and how it was found."""
        if self._running is not None:
            return Finding(finding.check, "ok", f"runs at {self._running.url}; {finding.message}")
        state = launcher.default_state_dir()
        place = next(folder for folder in (state, *state.parents) if folder.exists())
        if not os.access(place, os.W_OK | os.X_OK):
            error = ModalrunError(
                f"its state folder {state} can't be written to",
                hint=f"Set {STATE_VARIABLE} to a folder that you can write to.",
            )
            return Finding.of_error(finding.check, error)
        return Finding(finding.check, "ok", f"starts when it is needed; {finding.message}")

    def close(self) -> None:
        """End the process, and the server that was started only to see whether it starts."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._state.exists():
            launcher.stop(self._state)


def _is_silence(error: OSError) -> bool:
    """Whether a request failed since no answer came; urllib wraps it at some moments only."""
    return isinstance(error, TimeoutError) or isinstance(
        getattr(error, "reason", None), TimeoutError
    )


def _database(url: str, client: str) -> Finding:
    if url and not url.startswith("sqlite"):
        return Finding("zenml_server", "ok", "none: a database of ZenML's, asked directly")
    held = config_files.database_version()
    message = "none: ZenML's records are in a database on this machine"
    if held is None or held == client:
        return Finding("zenml_server", "ok", message)
    return Finding(
        "zenml_server",
        "warning",
        f"{message}, of ZenML {held}; this ZenML ({client}) will migrate it",
        "Back it up before the next command, if another ZenML still uses it.",
    )


def _pipeline(plan: Plan) -> Finding:
    many = len(plan.steps)
    what = f"'{plan.pipeline}', {many} step{'s' if many != 1 else ''}, mode {plan.settings.mode}"
    return Finding("pipeline", "ok", what)


def _order(plan: Plan | None, token: tuple[str, str] | None) -> CheckRequest:
    """What is to be checked of the Modal account, as far as it is known."""
    if plan is None:
        return CheckRequest(token)
    origin = plan.origins["workspace"]
    bases = [recipe.base for recipe in plan.images.values()]
    return CheckRequest(
        token,
        plan.settings.modal_environment,
        (origin.value, origin.source) if origin.value else None,
        tuple(dict.fromkeys(name for one in plan.sandboxes for name in one.secrets)),
        tuple(dict.fromkeys(name for one in plan.sandboxes for name in one.volumes)),
        tuple(dict.fromkeys(b.name for b in bases if isinstance(b, Named) and not b.is_id)),
    )
