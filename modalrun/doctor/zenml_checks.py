"""Check ZenML's server, the login, the stack, the artifact store, the images and the pipeline."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit

from modalrun.doctor.findings import Findings
from modalrun.errors import ConnectionLostError, UsageError
from modalrun.modal_api.account_check import AccountNeeds
from modalrun.plan import store_credentials
from modalrun.plan.image_recipe import ImageRecipe
from modalrun.plan.model import Plan
from modalrun.plan.stack import (
    StackDescription,
    has_private_address,
    is_on_this_machine,
    is_private,
    private_server,
    problems_on_modal,
    wrong_stack,
)
from modalrun.run.run_plan import Target
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import preflight, prepare
from modalrun.submit.prepare import PricedPlan
from modalrun.submit.runtime_packages import engine_packages
from modalrun.submit.source.imports import check_imports
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection
from modalrun.util import check, compatibility, reachability
from modalrun.util.check import Finding
from modalrun.zenml_api import config_files, process

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling.compile import Compiled
    from modalrun.zenml_api.health import Stack

T = TypeVar("T")

CONNECT_SECONDS = 2.0
"""How long ZenML's server may take to accept a connection, and to answer."""

_AFTER_SERVER = ("zenml_login", "stack", "artifact_store", "pipeline")


class ZenML(Protocol):
    """The functions of `zenml_api.health` that the checks call."""

    def login(self) -> str: ...
    def stack_of(self, spec: RunSpec | None) -> tuple[Stack, tuple[str, str] | None]: ...
    def describe_stack(self, stack: Stack) -> StackDescription: ...
    def round_trip(self, stack: Stack) -> str: ...
    def check_image(self, recipe: ImageRecipe, stack: Stack, *, docker: bool) -> Finding: ...
    def problem_of(self, check: str, error: Exception) -> Finding: ...


class ZenMLChecks:
    """The checks of ZenML, in one thread, and of the artifact store in a second one.

    Attributes:
        target: Where a run would go.
        imported: Set when ZenML is imported, or is not going to be.
        needs: What the Modal account is checked for; set as soon as it is known.
    """

    def __init__(
        self,
        findings: Findings,
        spec: RunSpec | None,
        target: Target,
        *,
        open_zenml: Callable[[Path], ZenML] | None = None,
        load: Callable[[RunSpec], Compiled] | None = None,
    ) -> None:
        """Prepare the checks of a spec, or of the active stack alone without one.

        Tests pass fakes of `open_zenml`, which imports ZenML for a source root, and of `load`.
        """
        self.target = target
        self.imported = threading.Event()
        self.needs: Future[AccountNeeds] = Future()
        self._priced: Future[PricedPlan | None] = Future()
        self._findings = findings
        self._spec = spec
        self._open_zenml = open_zenml or _open_zenml
        self._load = load or partial(prepare.load_deployment, looks=True)

    def run(self) -> None:
        """Make all checks; an error becomes the finding of those that it prevents."""
        try:
            damaged = self._findings.get("zenml_server") is not None
            if not damaged and check_server(self._findings, self.target):
                self._check_with_zenml()
            else:
                self._findings.skip(_AFTER_SERVER, "the ZenML server can't be asked")
        except Exception as error:
            for name in ("zenml_server", *_AFTER_SERVER):
                self._findings.put(Finding.of_error(name, error))
        finally:
            self.imported.set()
            self._findings.put(Finding("image", "ok", self._default_image()))
            self._findings.skip(("source",), "the pipeline can't be planned")
            _settle(self.needs, AccountNeeds())
            _settle(self._priced, None)

    def _check_with_zenml(self) -> None:
        zenml = self._open_zenml(self._spec.source_root if self._spec else Path.cwd())
        self.imported.set()
        login = _finding("zenml_login", zenml.login, zenml)
        self._findings.put(login)
        if login.state == "problem":
            self._findings.skip(_AFTER_SERVER[1:], "ZenML can't be asked")
            return
        stack, credentials = self._named_stack(zenml)
        priced: PricedPlan | None = None
        if self._spec is not None:
            try:
                compiled = self._load(self._spec)
                first, stack, credentials = stack is None, compiled.stack, compiled.credentials
                if first:
                    self._check_stack(zenml, stack)
                priced = prepare.plan_deployment(
                    compiled.deployment, compiled.stack_description, self._spec
                )
                self._findings.put(_finding("pipeline", partial(_pipeline, priced.plan), zenml))
                selection = priced.source
                self._findings.put(_finding("source", lambda: _source(selection), zenml))
            except Exception as error:
                self._report_pipeline(zenml.problem_of("pipeline", error))
        _settle(self._priced, priced)
        plan = priced.plan if priced else None
        needs = AccountNeeds.of(plan) if plan else AccountNeeds()
        _settle(self.needs, replace(needs, credentials=credentials))
        if stack is None:
            self._findings.skip(("stack", "artifact_store"), "there is no stack to look at")
        elif plan is not None and self.target == "modal":
            self._findings.put(_images(zenml, plan, stack))

    def _named_stack(self, zenml: ZenML) -> tuple[Stack | None, tuple[str, str] | None]:
        """Check the stack of the spec, or the active one, before the pipeline is compiled."""
        if self._spec is not None and self._spec.deployment is not None:
            # A compiled deployment has a stack of its own.
            return None, None
        try:
            stack, credentials = zenml.stack_of(self._spec)
            self._check_stack(zenml, stack)
            return stack, credentials
        except Exception as error:
            self._findings.put(zenml.problem_of("stack", error))
            return None, None

    def _check_stack(self, zenml: ZenML, stack: Stack) -> None:
        """Check a stack, and its artifact store in a thread of its own."""
        described = zenml.describe_stack(stack)
        problems = problems_on_modal(described) if self.target == "modal" else []
        stores = [one for one in described.components if one.kind == "artifact_store"]
        on_this_machine = bool(problems) and any(one.is_local for one in stores)

        def check_store() -> None:
            found = _finding("artifact_store", lambda: zenml.round_trip(stack), zenml)
            if found.state == "ok" and any(one.ambient for one in described.components):
                found = self._login_of_sandboxes(described) or found
            elif found.state == "ok" and on_this_machine:
                message = f"works from this machine only: {found.message}"
                found = Finding("artifact_store", "warning", message)
            self._findings.put(found)

        threading.Thread(target=check_store, daemon=True).start()
        if problems:
            self._findings.put(Finding.of_error("stack", wrong_stack(described, problems)))
            return
        parts = ", ".join(
            f"{one.kind.replace('_', ' ')} {one.name}" for one in described.components
        )
        self._findings.put(Finding("stack", "ok", f"'{described.name}': {parts}"))

    def _login_of_sandboxes(self, described: StackDescription) -> Finding | None:
        """Return what keeps sandboxes from logging in to the artifact store, as this machine can.

        It waits for the plan, which says what the sandboxes have.
        """
        priced = self._priced.result()
        if priced is None:
            stores = (one for one in described.components if one.ambient)
            texts = tuple(store_credentials.problem(store) for store in stores)
        else:
            texts = priced.no_login
        if not texts:
            return None
        if priced is None or self.target == "local":
            return Finding("artifact_store", "warning", " ".join(texts))
        return Finding.of_error("artifact_store", UsageError(" ".join(texts)))

    def _report_pipeline(self, problem: Finding) -> None:
        """Report why the pipeline can't be planned, unless the stack's finding says it already."""
        stack = self._findings.get("stack")
        if stack is not None and stack.message == problem.message:
            self._findings.skip(("pipeline",), "the stack is a problem")
        self._findings.put(problem)

    def _default_image(self) -> str:
        """Describe the image of a run of which there is no plan."""
        if self.target == "local":
            return f"none is built: sandboxes run this Python, {sys.executable}"
        return f"made from the Docker settings, with {', '.join(engine_packages())}"


def _settle(future: Future[T], value: T) -> None:
    """Give a future a value, unless it has one."""
    if not future.done():
        future.set_result(value)


def check_server(findings: Findings, target: Target) -> bool:
    """Check ZenML's server before ZenML is imported; return whether ZenML can be used."""
    url, client = config_files.store_url(), metadata.version("zenml")
    if urlsplit(url).scheme not in {"http", "https"}:
        findings.put(_database(url, client))
        return True
    problem = reachability.connection_problem(url, CONNECT_SECONDS)
    if problem is not None:
        error = ConnectionLostError(
            f"{url} can't be reached: {problem}", hint=reachability.CHECK_SERVER
        )
        findings.put(Finding.of_error("zenml_server", error))
        return False
    version: str | None = None
    try:
        with contextlib.suppress(ValueError, AttributeError):
            answer = reachability.ask(f"{url.rstrip('/')}/api/v1/info", seconds=CONNECT_SECONDS)
            findings.record_clock("ZenML", answer.ahead)
            version = json.loads(answer.body).get("version")
    except OSError as error:
        # urllib wraps some timeouts, and not others.
        if isinstance(getattr(error, "reason", error), TimeoutError):
            silent = ConnectionLostError(
                f"{url} takes connections, but does not answer within {CONNECT_SECONDS:g} s",
                hint="Look whether it is overloaded, or only just starting, and try again.",
            )
            findings.put(Finding.of_error("zenml_server", silent))
            return False
        # ZenML's own client may succeed, for example with its certificates: the login shows it.
        message = f"{url} takes connections, but its version could not be read: {error}"
        findings.put(Finding("zenml_server", "warning", message, reachability.CHECK_SERVER))
    if version is None:
        message = f"{url} answers, but not as a ZenML server does"
        hint = "Check its address ('zenml login', ZENML_STORE_URL), or the proxy before the server."
        findings.put(Finding("zenml_server", "warning", message, hint))
        return True
    supported = compatibility.versions_of("zenml")
    found = check.server_version(url, version, client, supported)
    if target == "modal" and found.state == "ok" and _is_private(url):
        hint = "A run needs a way from Modal to it. 'modalrun smoke' shows whether there is one."
        found = Finding("zenml_server", "warning", private_server(url), hint)
    findings.put(found)
    return True


def _is_private(url: str) -> bool:
    """Whether a server has a private address, or a name that stands for one in this network.

    One on this machine is a problem of the stack.
    """
    if is_on_this_machine(url):
        return False
    addresses: set[str] = set()
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(urlsplit(url).hostname, None)
        addresses = {str(address[0]) for *_, address in found}
    return has_private_address(url) or (bool(addresses) and all(map(is_private, addresses)))


def _database(url: str, client: str) -> Finding:
    if url and not url.startswith("sqlite"):
        return Finding("zenml_server", "ok", "none: a database of ZenML's, asked directly")
    version = config_files.database_version()
    message = "none: ZenML's records are in a database on this machine"
    if version is None or version == client:
        return Finding("zenml_server", "ok", message)
    return Finding(
        "zenml_server",
        "warning",
        f"{message}, of ZenML {version}; this ZenML ({client}) will migrate it",
        "Back it up before the next command, if another ZenML still uses it.",
    )


def _pipeline(plan: Plan) -> str:
    """Describe a plan.

    Raises:
        UsageError: The local Modal server would refuse it.
    """
    preflight.check_catalog(plan)
    count = len(plan.steps)
    steps = "dynamic" if plan.dynamic else f"{count} step{'s' if count != 1 else ''}"
    return f"'{plan.pipeline}', {steps}, mode {plan.settings.mode}"


def _source(selection: SourceSelection) -> str:
    """Describe the files that go.

    Raises:
        UsageError: They can't go.
    """
    tree = select(selection)
    tree.check()
    check_imports(selection, tree)
    return tree.described().removeprefix("source: ")


def _images(zenml: ZenML, plan: Plan, stack: Stack) -> Finding:
    """Check the images of a plan; the first problem or warning counts."""
    docker = any(shutil.which(command) for command in ("docker", "podman"))
    try:
        found = [zenml.check_image(recipe, stack, docker=docker) for recipe in plan.images.values()]
    except Exception as error:
        return zenml.problem_of("image", error)
    messages = dict.fromkeys(finding.message for finding in found)
    return next(
        (finding for finding in found if finding.state != "ok"),
        Finding("image", "ok", "; ".join(messages)),
    )


def _finding(name: str, make: Callable[[], str], zenml: ZenML) -> Finding:
    try:
        return Finding(name, "ok", make())
    except Exception as error:
        return zenml.problem_of(name, error)


def _open_zenml(source_root: Path) -> ZenML:
    """Import ZenML for a project."""
    process.prepare_process(source_root)
    from modalrun.zenml_api import health

    return health
