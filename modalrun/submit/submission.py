"""Submit a run: create its record in ZenML and its run sandbox on Modal, and follow it."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, cast

from modalrun.errors import (
    NOTHING_SUBMITTED,
    Interrupted,
    RunStoppedError,
    UsageError,
)
from modalrun.modal_api.sandboxes.running_sandbox import RunningSandbox
from modalrun.observe import attach
from modalrun.observe.attach import StopRun
from modalrun.observe.handle import RunHandle, RunObserver
from modalrun.observe.interrupt_prompt import OnInterrupt
from modalrun.observe.outcome import accepted
from modalrun.run.metadata import RunMetadata
from modalrun.run.outcome import Outcome, all_cached
from modalrun.run.records import CreatedRun, Placeholder
from modalrun.run.run_plan import RunPlan
from modalrun.run.source import Source
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import fingerprint, plan_cache, preflight, prepare, reuse
from modalrun.submit.ahead import Asked, ModalAhead
from modalrun.submit.cancellation import cancelled_when_stopped
from modalrun.submit.creation import create_ahead, create_run_sandbox
from modalrun.submit.lean import NOT_COMPILED, LeanSubmission, create_run, find
from modalrun.submit.preflight import Job
from modalrun.submit.recording import all_run_sandboxes
from modalrun.submit.source.ahead import SourceAhead, copied_ahead, remembered
from modalrun.submit.source.imports import check_imports
from modalrun.submit.source.selection import credential_notes, select
from modalrun.submit.source.staging import new_files_note, stage, stage_again
from modalrun.submit.withdrawal import Withdrawal, announcement, as_recorded, say_at_last
from modalrun.util import background, interrupts, timeline
from modalrun.util.background import in_background
from modalrun.zenml_api import config_files
from modalrun.zenml_api.errors import store_error
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway
from modalrun.zenml_api.process import zenml_process
from modalrun.zenml_api.records import stores
from modalrun.zenml_api.records.rest_store import RestStore

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling.compile import Compiled

UNANSWERED = (
    "Interrupted; nothing runs on Modal. ZenML has not answered whether it has created the run: if"
    " 'zenml pipeline runs list' shows it as initializing, 'modalrun reconcile --force RUN' records"
    " its end."
)


def submit(
    spec: RunSpec,
    observer: RunObserver,
    *,
    stop: StopRun,
    max_cost: Decimal | None = None,
    on_interrupt: OnInterrupt = "detach",
    fresh: bool = False,
) -> Outcome:
    """Compile, plan and create a run; unless it is asynchronous, follow it to its end.

    Args:
        max_cost: The most that the run may cost in USD, by its ceiling; None for no limit.
        on_interrupt: What Ctrl-C and SIGTERM do once the run has its sandbox.
        fresh: Whether to compile although an earlier submission has compiled the same.

    Raises:
        ModalrunError: The run was not created, or its end is not known. A run that fails is an
            outcome, not an error.
        KeyboardInterrupt, Interrupted: A signal ended the submission or the following.
        BrokenPipeError: The reader of the output has gone; the run continues.
    """
    with ExitStack() as using, ExitStack() as submitting:
        with _told_if_interrupted(observer):
            began = time.time()
            spec = prepare.with_file_values(spec)
            key, configuration = fingerprint.of_spec(spec), config_files.folder()
            earlier = plan_cache.load(key)
            using.enter_context(zenml_process(spec.source_root))
            submitting.enter_context(timeline.shown(observer.say))
            if (copied := copied_ahead(spec.source_root, earlier.get("source"))) is not None:
                submitting.enter_context(copied)
            modal = ModalAhead(Asked.from_json(earlier.get("modal")), copied)
            text = f"Compiling {spec.pipeline}" if spec.pipeline else "Reading the deployment"
            observer.phase(text)
            if spec.target == "local":
                preflight.warm_up_local_server()
            # The requests to ZenML wait for its server, while the import of Modal's SDK does not.
            looking = background.begin(
                lambda: None if fresh else find(spec, key, configuration), "zenml"
            )
            if spec.target == "modal" or reuse.NAME in earlier:
                modal.begin(spec.target)
            lean = background.outcome(looking, "ask ZenML's server")
            using.callback(stores.use, None)
            compiled = _begun(spec, lean, observer) if lean else prepare.load_deployment(spec)
            job = preflight.check(spec, compiled, observer, max_cost, modal=modal)
        submission = Submission(
            job,
            observer,
            ZENML,
            copied,
            submitted=spec.rerun.source if spec.rerun else None,
        )
        signal_number: int | None = None
        try:
            with redirect_stdout(sys.stderr):
                created = submission.create(
                    lambda placeholder: create_run(
                        spec, compiled, lean, submission.source, placeholder
                    )
                )
            interrupts.check()
            synchronous = job.plan.settings.synchronous
            if submission.handle is None:
                return all_cached(created.id, created.url, job.steps, asynchronous=not synchronous)
            remembering = None
            if submission.source is not None:
                source = remembered(job.source, submission.source)
                plan_cache.store(key, {"modal": modal.asked.to_json(), "source": source})
                if lean is None:
                    remembering = reuse.remember(
                        key, spec, compiled, created, submission.source, began=began
                    )
            if not synchronous:
                with redirect_stdout(sys.stderr):
                    return _accepted(submission.handle, remembering)
        except (KeyboardInterrupt, Interrupted) as interruption:
            if submission.handle is None:
                raise
            signal_number = interrupts.number(interruption)
            interrupts.forget()
        submitting.close()
        return attach.follow(
            submission.handle, observer, on_interrupt, stop=stop, interrupted=signal_number
        )


@contextlib.contextmanager
def _told_if_interrupted(observer: RunObserver) -> Iterator[None]:
    """Say of a signal that nothing was submitted."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        say_at_last(observer, NOTHING_SUBMITTED)
        raise


def _accepted(run: RunHandle, remembering: threading.Thread | None) -> Outcome:
    """Return the outcome of an asynchronous run, once nothing more is to be stored.

    Raises:
        KeyboardInterrupt, Interrupted: A signal came.
    """

    def wait() -> Outcome:
        if remembering is not None:
            remembering.join()
        return accepted(run)

    return in_background(wait)


def _begun(spec: RunSpec, lean: LeanSubmission, observer: RunObserver) -> Compiled:
    """Use no ZenML for the run's records; return what stands for the compiled pipeline."""
    stores.use(RestStore(lean.server.session))
    if spec.own_code:
        observer.say(NOT_COMPILED)
    return cast("Compiled", lean.compiled)


@dataclass
class Submission:
    """Create a run and its run sandbox; on a failure, leave neither of them behind.

    Attributes:
        observer: Receives progress.
        copied: The source tree, if it is copied ahead.
        previous: What is recorded of the run's last sandbox, which has ended.
        submitted: The record of the source tree that it must get, of its last sandbox or of the run
            that it reruns.
        source: What is to be recorded of the source tree, as soon as it is staged.
        handle: The run, as soon as its sandbox exists. It stays None if ZenML's cache completes
            the run.
    """

    job: Job
    observer: RunObserver
    zenml: ZenMLGateway
    copied: SourceAhead | None = None
    previous: RunMetadata | None = None
    submitted: Source | None = None
    source: Source | None = field(default=None, init=False)
    handle: RunHandle | None = field(default=None, init=False)
    _plan: RunPlan = field(init=False)
    _unanswered: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        self._plan = self.job.plan

    def create(
        self, create_run: Callable[[Placeholder], CreatedRun], run_id: str | None = None
    ) -> CreatedRun:
        """Create the record in ZenML first, so that the run id exists, then the sandbox.

        A signal before the sandbox exists cancels the run: it is recorded as stopped.

        Args:
            create_run: Creates the record, or reads the one that ZenML has created. A run whose
                id it sets is recorded as ended if anything fails.
            run_id: The id of a run that exists and is recorded so whatever fails.

        Raises:
            ModalrunError: The run was not created. After an `UnknownOutcomeError` its record and
                perhaps its sandbox exist.
            KeyboardInterrupt, Interrupted: A signal came.
        """
        job, observer, placeholder = self.job, self.observer, Placeholder(run_id)
        with tempfile.TemporaryDirectory(prefix="modalrun-source-") as folder:
            try:
                with timeline.phase("resolve the images"):
                    plan, registry = self.zenml.resolve_images(job.plan, job.compiled)
                self._plan = plan
                observer.phase("Creating the run, its image and its sandbox")
                staged = self._stage(Path(folder) / "source")
                # Not before: its files may be refused.
                for line in job.compiled.rerun.lines if job.compiled.rerun else ():
                    observer.say(line)
                sending = background.begin(
                    lambda: job.modal.send(job.connection, plan, staged, job.builder), "modal"
                )
                run = create_run(placeholder)
                placeholder.run_id = run.id
                if run.finished:
                    # It has no sandbox on record that marks it as a run of modalrun's.
                    self.zenml.publish_metadata(run.id, announcement(self._plan))
                    self._name(run)
                    return run
                building = background.begin(
                    lambda: job.modal.build_images(
                        job.connection, plan, staged, registry, job.builder
                    )
                )
                files = self.source.to_metadata() if self.source is not None else {}
                announced = {**announcement(self._plan), **files}
                with cancelled_when_stopped(run.id, announced, self.zenml):
                    # Whoever knows the run can stop it.
                    self._name(run)
                    images = background.outcome(building, "wait for the images")
                    self._plan = plan.with_images(images)
                    with contextlib.suppress(Exception):
                        # The creation sends what could not be sent.
                        background.outcome(sending)
                    self.handle = create_run_sandbox(
                        job,
                        self._plan,
                        run,
                        staged,
                        observer=observer,
                        zenml=self.zenml,
                        unanswered=self._unanswered,
                        ended=run.done if self.previous else (),
                        earlier=all_run_sandboxes(self.previous),
                        resumes=(self.previous and self.previous.resumes) or (),
                    )
                    if self.previous is None:
                        create_ahead(job, self._plan, run, staged)
            except BaseException as error:
                # The SDK may have turned a signal into an error of its own.
                cause = interrupts.pending() or error
                if isinstance(cause, Exception):
                    cause = store_error(cause) or cause
                if (run_id := placeholder.run_id) is not None:
                    if isinstance(cause, UsageError):
                        cause = as_recorded(cause, run_id)
                    self._withdraw(run_id, cause)
                elif isinstance(cause, KeyboardInterrupt | Interrupted):
                    text = UNANSWERED if placeholder.unanswered else NOTHING_SUBMITTED
                    say_at_last(self.observer, text)
                if cause is error:
                    raise
                raise cause from error
        observer.say(f"  sandbox  {_describe(self._plan, self.handle.sandbox)}")
        observer.say("")
        return run

    def _name(self, run: CreatedRun) -> None:
        self.observer.say(f"Run {run.name}", "bold")
        self.observer.say(f"  id       {run.id}")
        self.observer.say(f"  stack    {self.job.compiled.stack_description.name}")

    def _stage(self, folder: Path) -> Path:
        """Copy the source tree to a folder, unless it is copied already; return where it is."""
        selection, say = self.job.source, self.observer.say
        if self.submitted is not None:
            rerun = self.previous is None
            again, new, tree = stage_again(self.submitted, selection, folder, rerun=rerun)
            if new:
                say(new_files_note(new), "yellow")
            self.source = again if rerun else None
            if rerun:
                for note in credential_notes(tree.files):
                    say(f"note: {note}", "yellow")
                say(tree.described())
            return folder
        with timeline.phase("select the source"):
            tree = select(selection)
        check_imports(selection, tree)
        for note in tree.notes:
            say(f"note: {note}", "yellow")
        say(tree.described("'modalrun plan SPEC --files' lists them"))
        if self.copied is not None and (source := self.copied.take(selection, tree)) is not None:
            self.source = source
            return self.copied.folder
        with timeline.phase("copy and hash the source"):
            self.source = stage(tree, folder)
        return folder

    def _withdraw(self, run_id: str, error: BaseException) -> None:
        """Leave no record and no sandbox that look alive after a failure or an interrupt."""
        if self.handle is None:
            Withdrawal(
                self.job,
                self._plan,
                self.zenml,
                self.observer,
                self._unanswered,
                resumed=self.previous is not None,
            ).in_time(run_id, error)
        elif isinstance(error, RunStoppedError):
            self.handle.sandboxes.terminate()


def _describe(plan: RunPlan, sandbox: RunningSandbox) -> str:
    resources = plan.run_sandbox.resources
    place = {
        "app": plan.settings.app_name,
        "target": plan.target,
        "environment": plan.settings.modal_environment,
    }
    asked = {
        "gpu": sandbox.gpu,
        "cpu": f"{resources.cpu:g}",
        "memory": f"{resources.memory} MiB",
        "region": " or ".join(plan.run_sandbox.regions),
        "cloud": plan.run_sandbox.cloud,
    }
    where, what = (
        ", ".join(f"{name} {value}" for name, value in one.items() if value)
        for one in (place, asked)
    )
    return f"{sandbox.id} ({where})\n           {what}"
