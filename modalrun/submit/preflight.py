"""Check everything about a run that can be checked before anything is created."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from modalrun.errors import ModalrunError, UsageError
from modalrun.localmodal import launcher
from modalrun.modal_api.account_check import AccountNeeds
from modalrun.modal_api.client import Connection
from modalrun.modal_api.configuration import ENVIRONMENT
from modalrun.modal_api.gateway import MODAL, ModalGateway
from modalrun.modal_api.image_builder import PinnedBuilder
from modalrun.observe.handle import RunObserver
from modalrun.plan import pricing
from modalrun.plan.catalog import beyond_catalog
from modalrun.plan.model import Plan
from modalrun.spec.precedence import Origin
from modalrun.spec.run_spec import RunSpec
from modalrun.submit.preload import PRELOAD
from modalrun.submit.prepare import PricedPlan, plan_deployment
from modalrun.submit.source.tree import SourceSelection
from modalrun.util import background, timeline

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


@dataclass(frozen=True)
class Earlier:
    """What ZenML records of a run that continues: its id, and the Modal environment it was in.

    A step can change the record, so it is only a hint.
    """

    run_id: str
    environment: str | None


def check(
    spec: RunSpec,
    compiled: Compiled,
    observer: RunObserver,
    max_cost: Decimal | None = None,
    *,
    modal: ModalGateway = MODAL,
    earlier: Earlier | None = None,
) -> Job:
    """Plan a compiled pipeline and check cost, stack, credentials and names.

    Args:
        max_cost: The most that the run may cost in USD; None for no limit.
        earlier: What is recorded of a run that continues.

    Raises:
        ModalrunError: The class names the check that failed. Nothing was created.
    """
    with timeline.phase("plan"):
        priced = plan_deployment(
            compiled.deployment,
            compiled.stack_description,
            spec,
            skipped=compiled.rerun.skipped if compiled.rerun else (),
        )
    plan = priced.plan
    for note in plan.notes:
        observer.say(f"note: {note}", "yellow")
    if max_cost is not None:
        pricing.check_limit(priced.cost, max_cost)
    job = connect(spec, compiled, priced, modal=modal, earlier=earlier)
    if job.builder is not None:
        observer.say(f"note: {job.builder.note}", "yellow")
    return job


def connect(
    spec: RunSpec,
    compiled: Compiled,
    priced: PricedPlan,
    *,
    modal: ModalGateway = MODAL,
    earlier: Earlier | None = None,
) -> Job:
    """Check the stack, the credentials and the names of a run that is planned; as `check`."""
    connection, plan, builder = connect_account(priced, compiled.credentials, modal, earlier)
    return Job(compiled, plan, modal, connection, priced.source, builder)


def connect_account(
    priced: PricedPlan,
    credentials: tuple[str, str] | None,
    modal: ModalGateway,
    earlier: Earlier | None = None,
) -> tuple[Connection, Plan, PinnedBuilder | None]:
    """Connect to Modal, and check the stack, the account and the names of a plan; as `check`.

    The plan that is returned names its Modal environment.
    """
    problems: list[ModalrunError] = []
    plan, connection, builder = priced.plan, None, None
    with _collected(problems):
        connection = modal.connect(plan.target, credentials=credentials)
    with _collected(problems):
        priced.check_stack()
    with _collected(problems):
        check_catalog(plan)
    if connection is not None:
        with _collected(problems):
            plan = _in_its_environment(modal, connection, plan, earlier)
            needs = AccountNeeds.of(plan)
            with _collected(problems):
                modal.check_names(connection, needs)
            with _collected(problems):
                modal.check_workspace(connection, needs)
            builder = modal.image_builder(connection, needs.environment, needs.pythons)
    if connection is None or problems:
        raise _together(problems, scripted=priced.spec.scripted)
    return connection, plan, builder


@contextlib.contextmanager
def _collected(problems: list[ModalrunError]) -> Iterator[None]:
    """Add the error of a block to a list, so that the next check is made as well."""
    try:
        yield
    except ModalrunError as error:
        problems.append(error)


def _together(problems: Sequence[ModalrunError], *, scripted: bool) -> ModalrunError:
    """Return one error that tells all of several; its class is that of the first."""
    first, *more = problems
    if not more:
        return first
    hints = [error.hint for error in problems if error.hint]
    doctor = f"'modalrun doctor'{'' if scripted else ' with the run spec'} checks all."
    return type(first)(
        "\n".join(error.problem for error in problems),
        effect="Nothing was created.",
        hint="\n".join([*dict.fromkeys(hints), doctor]),
    )


def check_catalog(plan: Plan) -> None:
    """Refuse, before there is a run, what the local Modal server would refuse afterwards.

    Raises:
        UsageError: A sandbox asks for what Modal is not known to offer, and the server is strict.
    """
    beyond = beyond_catalog(plan.sandboxes) if plan.target == "local" else []
    if beyond and not (launcher.status() or {}).get("lenient"):
        raise UsageError(
            f"The local Modal server refuses this, as Modal would: {'; '.join(beyond)}.",
            effect="Nothing was created.",
            hint="Correct it. If Modal has it by now: 'modalrun local stop', then 'modalrun local"
            " start --lenient'.",
        )


def _in_its_environment(
    modal: ModalGateway, connection: Connection, plan: Plan, earlier: Earlier | None
) -> Plan:
    """Return a plan with the name of the Modal environment that the run is in, or will be in.

    Raises:
        NotFoundError: There is no such environment.
        UsageError: The run was in another one by its record, and Modal knows its sandbox in none.
    """
    set_by = plan.origins["modal_environment"].origin
    found = plan.in_environment(modal.environment_name(connection, plan.settings.modal_environment))
    name, recorded = found.settings.modal_environment, earlier.environment if earlier else None
    if earlier is None or recorded is None or recorded == name or set_by < Origin.DEFAULT:
        return found
    for candidate in (plan.in_environment(recorded), found):
        if modal.find_last(connection, candidate, candidate.sandbox_of_run(earlier.run_id)):
            return candidate
    raise UsageError(
        f"The run {earlier.run_id} was submitted in the Modal environment '{recorded}', its record"
        f" in ZenML says; here it would continue in '{name}'.",
        hint=f"If that is right, name it: {ENVIRONMENT}={recorded}.",
    )


def warm_up_local_server() -> None:
    """Start the local Modal server from a background thread, with its preloaded imports.

    The server takes as long to start as ZenML to import. Errors show up at the first call to it.
    """
    background.begin(lambda: launcher.preload(launcher.ensure_running(), PRELOAD))
