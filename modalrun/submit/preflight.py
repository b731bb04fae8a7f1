"""Check everything about a run that can be checked before anything is created."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from modalrun.errors import ModalrunError
from modalrun.localmodal import launcher
from modalrun.modal_api import Connection
from modalrun.modal_api.account_check import AccountNeeds
from modalrun.modal_api.gateway import ModalGateway
from modalrun.modal_api.image_builder import PinnedBuilder
from modalrun.observe.handle import RunObserver
from modalrun.plan import pricing
from modalrun.plan.model import Plan
from modalrun.spec.run_spec import RunSpec
from modalrun.submit.preload import PRELOAD
from modalrun.submit.prepare import PricedPlan, plan_deployment
from modalrun.submit.source_tree import SourceSelection

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling.compile import Compiled


@dataclass(frozen=True)
class Job:
    """A run that has passed every check and can be created.

    Attributes:
        builder: The image builder version that its images need; None for the usual one.
    """

    compiled: Compiled
    plan: Plan
    modal: ModalGateway
    connection: Connection
    source: SourceSelection
    builder: PinnedBuilder | None

    @property
    def steps(self) -> tuple[str, ...]:
        """All steps, parents before children; empty for a dynamic pipeline."""
        if self.plan.dynamic:
            return ()
        return tuple(step.name for step in self.compiled.deployment.steps)


def check(
    spec: RunSpec,
    compiled: Compiled,
    observer: RunObserver,
    max_cost: Decimal | None = None,
    *,
    modal: ModalGateway | None = None,
) -> Job:
    """Plan a compiled pipeline and check cost, stack, credentials and names.

    Args:
        spec: The run spec.
        compiled: Its pipeline.
        observer: Receives the notes of the plan.
        max_cost: The most that the run may cost in USD; None for no limit.
        modal: The functions on Modal; None for the real ones.

    Raises:
        ModalrunError: The class names the check that failed. Nothing was created.
    """
    priced = plan_deployment(compiled.deployment, compiled.stack_description, spec)
    plan = priced.plan
    for note in plan.notes:
        observer.say(f"note: {note}", "yellow")
    if max_cost is not None:
        pricing.check_limit(priced.cost, max_cost)
    job = connect(spec, compiled, priced, modal=modal)
    if job.builder is not None:
        observer.say(f"note: {job.builder.note}", "yellow")
    return job


def connect(
    spec: RunSpec, compiled: Compiled, priced: PricedPlan, *, modal: ModalGateway | None = None
) -> Job:
    """Check the stack, the credentials and the names of a run that is planned; as `check`."""
    modal = modal or ModalGateway()
    connection, builder = connect_account(priced, compiled.credentials, modal)
    return Job(compiled, priced.plan, modal, connection, priced.source, builder)


def connect_account(
    priced: PricedPlan, credentials: tuple[str, str] | None, modal: ModalGateway
) -> tuple[Connection, PinnedBuilder | None]:
    """Connect to Modal, and check the stack, the account and the names of a plan; as `check`."""
    plan = priced.plan
    connection = modal.connect(plan.target, credentials=credentials)
    priced.check_stack()
    needs = AccountNeeds.of(plan)
    modal.check_names(connection, needs)
    modal.check_workspace(connection, needs)
    return connection, modal.image_builder(connection, needs.environment, needs.pythons)


def warm_up_local_server() -> None:
    """Start the local Modal server from a background thread, with its preloaded imports.

    The server takes as long to start as ZenML to import. Errors show up at the first call to it.
    """

    def start() -> None:
        with contextlib.suppress(ModalrunError):
            launcher.preload(launcher.ensure_running(), PRELOAD)

    threading.Thread(target=start, daemon=True).start()
