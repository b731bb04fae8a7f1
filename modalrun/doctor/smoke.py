"""Prove on a Modal account what no local test can: `modalrun smoke`.

`smoke_trials` has the trials, small sandboxes in which `driver.probe` runs, and `smoke_checks`
judges them. They run side by side, in an app of their own that is stopped at the end.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path

from modalrun.doctor.findings import Report
from modalrun.doctor.smoke_checks import LINES, finding, judge, of_error
from modalrun.doctor.smoke_trials import TRIAL_SECONDS, TRIALS, Bench, Trial, with_gpu
from modalrun.errors import CapacityError, ConnectionLostError, ModalrunError, UsageError
from modalrun.modal_api.gateway import MODAL
from modalrun.plan import pricing
from modalrun.plan.image_recipe import RegistryCredentials
from modalrun.plan.model import Plan
from modalrun.run.run_plan import Target
from modalrun.spec.fields import split_gpu
from modalrun.spec.run_spec import RunSpec, load_spec
from modalrun.submit import preflight, prepare
from modalrun.submit.prepare import PricedPlan
from modalrun.submit.source.selection import select
from modalrun.submit.source.staging import stage
from modalrun.util import interrupts
from modalrun.util.background import begin, in_background
from modalrun.util.check import Finding
from modalrun.zenml_api.process import zenml_process


@dataclass(frozen=True)
class Smoke:
    """A smoke test that is planned.

    Attributes:
        priced: The plan for target, environment, region and image, and its stack.
        trials: By name.
        ceiling: What the sandboxes can cost at most, in USD; None if the GPU has no known price.
        variables: Those with which a sandbox uses ZenML.
        credentials: The Modal token of the stack's orchestrator; None for Modal's configuration.
        resolve: Completes the plan with what the stack's container registry has, and returns the
            login with which Modal pulls from it. ZenML may build the image for that.
        fill: Puts what every sandbox gets into a folder.
    """

    priced: PricedPlan
    trials: Mapping[str, Trial]
    ceiling: Decimal | None
    variables: dict[str, str] = field(repr=False)
    credentials: tuple[str, str] | None = field(repr=False)
    resolve: Callable[[Plan], tuple[Plan, RegistryCredentials | None]] = field(repr=False)
    fill: Callable[[Path], None] = field(repr=False)

    @property
    def plan(self) -> Plan:
        """What the sandboxes are made like."""
        return self.priced.plan

    def run(self, progress: Callable[[str], None], say: Callable[[str], None]) -> Report:
        """Run all trials side by side, and remove all that they have made.

        The exit code of the report is 1 if anything is broken, else 0.

        Args:
            progress: Called with what is going on.
            say: Called with what is left, if the test ends early.

        Raises:
            ModalrunError: Modal refuses the token or a name, or can't be reached.
            KeyboardInterrupt, Interrupted: A signal came.
        """
        began = time.monotonic()
        connection, plan, builder = in_background(
            lambda: preflight.connect_account(self.priced, self.credentials, MODAL)
        )
        progress("Resolving the image")
        plan, registry = self.resolve(plan)
        with tempfile.TemporaryDirectory(prefix="modalrun-smoke-") as folder:
            self.fill(Path(folder))
            bench = Bench(connection, plan, self.variables, Path(folder), builder)
            try:
                findings = list(self._find(bench, registry, progress))
            except BaseException:
                with interrupts.deferred():
                    interrupts.forget()
                    _, message, hint = bench.remove()
                say(f"The smoke test ended early: {message}. {hint or ''}".rstrip())
                raise
            with interrupts.deferred():
                findings.append(finding("removed", bench.remove()))
        findings.sort(key=lambda one: list(LINES).index(one.check))
        exit_code = max(one.exit_code for one in findings)
        return Report(self.plan.target, tuple(findings), time.monotonic() - began, exit_code)

    def _find(
        self, bench: Bench, registry: RegistryCredentials | None, progress: Callable[[str], None]
    ) -> Iterator[Finding]:
        """Build the image, then run each trial in a thread, until the time is over."""
        yield finding("account", in_background(bench.open))
        progress("Building the image, if Modal has none like it")
        try:
            yield finding("image", in_background(lambda: bench.build(registry)))
        except ModalrunError as error:
            # Without an image there is nothing to try.
            yield finding("image", of_error(error, "image"))
            return
        progress("Starting the sandboxes")
        results = {n: begin(partial(bench.attempt, n, one)) for n, one in self.trials.items()}
        until = time.monotonic() + TRIAL_SECONDS[self.plan.target]
        missing = set(results.values())
        total = sum(one.sandboxes for one in self.trials.values())
        while missing and time.monotonic() < until:
            interrupts.check()
            ended, missing = wait(missing, 0.5, FIRST_COMPLETED)
            if ended:
                done = sum(one.sandboxes for n, one in self.trials.items() if results[n].done())
                progress(f"{done} of {total} sandboxes have ended")
        progress("Removing what the smoke test has made")
        for name, result in results.items():
            yield from judge(name, result.result() if result.done() else self._late(name))

    def _late(self, name: str) -> ModalrunError:
        """Return the error about a trial that has no end."""
        kind = CapacityError if name == "gpu" else ConnectionLostError
        hint = "Try again; https://status.modal.com says how Modal is."
        return kind(f"no end of it within {TRIAL_SECONDS[self.plan.target]} s", hint=hint)


def read_spec(path: Path | None, target: Target | None) -> RunSpec:
    """Read the run spec of a smoke test; without one, it only has the target.

    Raises:
        UsageError: The spec is wrong.
    """
    if path is None:
        return RunSpec.of_snapshot(target or "modal", Path.cwd(), own_code=False)
    return prepare.with_file_values(load_spec(path, target=target))


@contextlib.contextmanager
def planned(spec: RunSpec, gpu: str | None, *, has_spec: bool) -> Iterator[Smoke]:
    """Plan a smoke test for a run spec, or for the active stack without one. Nothing is created.

    Raises:
        ModalrunError: The stack or a setting is wrong, or ZenML can't be used.
    """
    if gpu is not None:
        try:
            split_gpu(gpu)
        except ValueError as error:
            raise UsageError(f"--gpu: {error}.") from None
    with zenml_process(spec.source_root):
        if spec.target == "local":
            preflight.warm_up_local_server()
        yield _plan(spec, gpu, has_spec=has_spec)


def _plan(spec: RunSpec, gpu: str | None, *, has_spec: bool) -> Smoke:
    from modalrun.zenml_api import trial
    from modalrun.zenml_api.compiling.image_builds import resolve_images

    compiled = prepare.load_deployment(spec, looks=True) if has_spec else None
    ground = compiled or trial.of_active_stack(spec.source_root, built=spec.target == "modal")
    priced = prepare.plan_deployment(ground.deployment, ground.stack_description, spec)
    priced.check_stack()
    trials = {**TRIALS, **({"gpu": with_gpu(gpu)} if gpu else {})}

    def resolve(plan: Plan) -> tuple[Plan, RegistryCredentials | None]:
        return (plan, None) if compiled is None else resolve_images(plan, compiled)

    def fill(folder: Path) -> None:
        if compiled and any(recipe.project_install for recipe in priced.plan.images.values()):
            stage(select(priced.source), folder)
        # A folder without a file can't be mounted.
        (folder / "modalrun-smoke.txt").touch()

    return Smoke(
        priced,
        trials,
        ceiling(trials, priced.plan.run_sandbox.regions),
        trial.environment(ground.stack),
        ground.credentials,
        resolve,
        fill,
    )


def ceiling(trials: Mapping[str, Trial], regions: tuple[str, ...]) -> Decimal | None:
    """Return timeout x price of all sandboxes; None if the GPU has no known price."""
    total = Decimal(0)
    for one in trials.values():
        rate = pricing.per_second(one.resources, regions)
        if rate is None:
            return None
        total += rate * one.timeout * one.sandboxes
    return total
