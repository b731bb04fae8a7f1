"""Run the trials of `modalrun smoke`: create small sandboxes, look how they fare, remove them."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

from modalrun.doctor.smoke_checks import Seen, Verdict
from modalrun.errors import CapacityError, ConnectionLostError, ModalrunError
from modalrun.modal_api import trial
from modalrun.modal_api.account_check import workspace
from modalrun.modal_api.client import Connection
from modalrun.modal_api.errors import translated
from modalrun.modal_api.gateway import MODAL
from modalrun.modal_api.image_builder import PinnedBuilder, usual_builder
from modalrun.modal_api.sandboxes.running_sandbox import RunningSandbox
from modalrun.plan.image_recipe import RegistryCredentials
from modalrun.plan.model import Plan
from modalrun.run.run_plan import Target
from modalrun.run.sandbox_spec import Resources, SandboxSpec
from modalrun.run.tags import TAG_ROLE, TAG_RUN
from modalrun.util.background import begin, in_background

TRIAL_SECONDS: dict[Target, int] = {"modal": 150, "local": 60}
"""How long the trials may take once there is an image; half of it to find a GPU."""

REACTION_SECONDS = 30.0
"""How long a report of a probe is waited for, and lines in the history after an end."""

CREATION_SECONDS, REMOVAL_SECONDS = 5.0, 20.0
"""How long the clean-up waits for what is being created, and for each removal."""

VOLUME = "/smoke-volume"
SMALL, LARGE = Resources(cpu=0.25, memory=256), Resources(cpu=1.0, memory=1024)


@dataclass(frozen=True)
class Trial:
    """A sandbox that is tried.

    Attributes:
        probe: The arguments of `driver.probe`; empty for a command that does not exist.
        act: Called while the sandbox runs.
        resources: Large ones for a sandbox that uses ZenML or Modal, whose credentials it gets.
        mounts: Whether it mounts the volume.
        sandboxes: How many it creates.
    """

    probe: tuple[str, ...]
    act: Callable[[Bench, Watched], None] | None = None
    timeout: int = 60
    resources: Resources = SMALL
    mounts: bool = False
    sandboxes: int = 1


class Watched:
    """A sandbox whose output is read while it runs."""

    def __init__(self, sandbox: RunningSandbox, seen: Seen) -> None:
        self.id = sandbox.id
        self.seen = seen
        self._sandbox = sandbox
        self._changed = threading.Condition()
        self._end = begin(self._watch)
        self._end.add_done_callback(lambda _: self._notify())

    def _watch(self) -> None:
        def add(stream: str, text: str) -> None:
            if stream == "stdout":
                self.seen.output += text
            else:
                self.seen.errors += text
            self._notify()

        began = time.monotonic()
        self.seen.end = self._sandbox.watch(add)
        self.seen.seconds = time.monotonic() - began

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, name: str) -> bool:
        """Wait until the probe has reported a fact; return whether it has, in time."""
        with self._changed:
            self._changed.wait_for(
                lambda: bool(self.seen.all(name)) or self._end.done(), REACTION_SECONDS
            )
        return bool(self.seen.all(name))

    def join(self) -> None:
        """Wait for the end of the sandbox and its output; raise what has prevented it."""
        self._end.result()


@dataclass
class Bench:
    """The app, the volume, the image and the sandboxes of one smoke test.

    Attributes:
        plan: For target, environment, region and the image with ZenML and Modal.
        variables: Those with which a sandbox uses ZenML.
        source: The folder that every sandbox gets.
        builder: The image builder version, if it is not the usual one.
        name: Of the app and of the volume.
    """

    connection: Connection
    plan: Plan
    variables: dict[str, str] = field(repr=False)
    source: Path
    builder: PinnedBuilder | None = None
    run_id: str = field(default_factory=lambda: str(uuid4()))

    def __post_init__(self) -> None:
        self.name = f"modalrun-smoke-{self.run_id[:8]}"
        settings = replace(self.plan.settings, app_name=self.name, wait_for_capacity=None)
        self.plan = replace(self.plan, settings=settings)
        self.environment = settings.modal_environment
        # The sandbox of a step, if steps have their own.
        steps = (step.sandbox for step in self.plan.steps if step.sandbox)
        self._like = next(steps, self.plan.run_sandbox)
        self._modal = MODAL
        self._app_id = self._image = ""
        self._creating = 0
        self._closed = threading.Event()
        self._changed = threading.Condition()

    def open(self) -> Verdict:
        """Create the app and the volume; return the verdict about the account."""
        with self._creation():
            self._app_id = str(self.connection.app(self.name, self.environment).app_id)
            trial.create_volume(self.connection, self.name, self.environment)
        where = f"environment '{self.environment}'"
        owner = f"workspace '{workspace(self.connection) or 'without a name'}'"
        if self.plan.target == "local":
            owner = "the local Modal server"
        builder = usual_builder(self.connection, self.environment)
        found = f"{owner}, {where}, image builder {builder}"
        return ("differs", found, self.builder.note) if self.builder else ("ok", found, None)

    def build(self, registry: RegistryCredentials | None) -> Verdict:
        """Build the image; return the verdict about it.

        Raises:
            ModalrunError: It can't be built.
        """
        recipe, began = self.plan.images[self._like.image], time.monotonic()
        plan = replace(self.plan, images={"": recipe})
        ids = self._modal.build_images(self.connection, plan, self.source, registry, self.builder)
        self._image = ids[""]
        if not self.connection.mounts_package:
            message = "none is built: sandboxes run the Python of the local Modal server"
            return "differs", message, "On Modal it is built from its recipe."
        return "ok", f"{recipe.base}, in {time.monotonic() - began:.0f} s", None

    def attempt(self, name: str, one: Trial) -> Seen | ModalrunError:
        """Run one trial to its end; return what was seen, or the error that prevented it."""
        try:
            watched = self.start(name, one)
            if one.act is not None:
                one.act(self, watched)
            watched.join()
            return watched.seen
        except (ConnectionLostError, CapacityError) as error:
            return error
        except ModalrunError as error:
            return error if one.probe else Seen(more={"refused": error.problem})
        except Exception as error:
            return ModalrunError(f"{type(error).__name__}: {error}")

    def start(self, name: str, one: Trial) -> Watched:
        """Create the sandbox of a trial, as that of a run is created."""
        like = self._like
        command: tuple[str, ...] = ("modalrun-no-such-command",)
        if one.probe:
            arguments = (self._argument(argument) for argument in one.probe)
            command = (like.command[0], "-m", "modalrun.driver.probe", *arguments)
        kept = ("PYTHONUNBUFFERED", "PYTHONPATH")
        spec = SandboxSpec(
            command=command,
            image=self._image,
            resources=one.resources,
            timeout=one.timeout,
            gpu_wait=TRIAL_SECONDS[self.plan.target] // 2,
            cloud=like.cloud,
            regions=like.regions,
            env={name: value for name, value in like.env.items() if name in kept},
            secrets=like.secrets if one.resources is LARGE else (),
            volumes={self.name: VOLUME} if one.mounts else {},
            name=f"{self.name}-{name}",
            tags={TAG_RUN: self.run_id, TAG_ROLE: "run"},
        )
        secrets = self.variables if one.resources is LARGE else {}
        if "driver" in one.probe:
            secrets = self.connection.driver_environment(self.environment)
        with self._creation():
            sandbox = self._modal.create_run_sandbox(
                self.connection, self.plan, spec, secrets, self.source, given_up=self._closed
            )
        more = {"app": self._app_id, "text": self.run_id}
        return Watched(sandbox, Seen(local=self.plan.target == "local", more=more))

    def _argument(self, argument: str) -> str:
        """Fill in what an argument of a probe stands for."""
        values = {
            "run_id": self.run_id,
            "app": self.name,
            "environment": self.environment,
            "image": self._image,
        }
        return {"TEXT": self.run_id, "DRIVER": json.dumps(values)}.get(argument, argument)

    @contextlib.contextmanager
    def _creation(self) -> Iterator[None]:
        """Make the clean-up wait for what the block creates; refuse it after the clean-up."""
        with self._changed:
            if self._closed.is_set():
                raise ConnectionLostError("The smoke test has ended.")
            self._creating += 1
        try:
            yield
        finally:
            with self._changed:
                self._creating -= 1
                self._changed.notify_all()

    def remove(self) -> Verdict:
        """Remove everything; return the verdict that says so, or what is left."""
        with self._changed:
            self._closed.set()
            self._changed.wait_for(lambda: not self._creating, CREATION_SECONDS)
        place = (self.connection, self.name, self.environment)

        def stop() -> None:
            if self._app_id:
                group = self._modal.sandboxes_of(self.connection, self.run_id, self._app_id)
                group.terminate(seconds=REMOVAL_SECONDS / 2)
            trial.stop_app(*place)

        where = f"{self.name}{f' --env {self.environment}' if self.environment else ''}"
        removals: dict[str, Callable[[], None]] = {
            f"app stop {where}": stop,
            f"volume delete {where}": lambda: trial.remove_volume(*place),
        }
        problems: dict[str, str] = {}
        for command, removal in removals.items():
            try:
                in_background(removal, REMOVAL_SECONDS)
            except Exception as error:  # noqa: PERF203 (two of them)
                problems[command] = getattr(error, "problem", repr(error))
        if not problems:
            return "ok", "the sandboxes, the app and the volume are removed", None
        message = f"something may be left: {'; '.join(dict.fromkeys(problems.values()))}"
        return "broken", message, f"Run: {self.connection.shell_command(*problems)}"


def _answer(bench: Bench, watched: Watched) -> None:
    """Write by two handles, and compare the clocks by the time of the first answer."""
    began = time.time()
    for text, reported in (("first\n", "ready"), ("second\n", "line")):
        if watched.wait_for(reported):
            for at in watched.seen.all("at"):
                watched.seen.more["ahead"] = (began + time.time()) / 2 - at
            began = time.time()
            with contextlib.suppress(ValueError):
                bench.connection.write_input(watched.id, bench.run_id, text)


def _read_again(bench: Bench, watched: Watched) -> None:
    """Read the output after the end, from its beginning: live, and from the history."""
    watched.join()
    ended, more = time.monotonic(), watched.seen.more
    handle = bench.connection.attach(watched.id, bench.run_id)
    again = RunningSandbox(bench.connection, handle, bench.run_id, app_id=more["app"])
    late = Watched(again, Seen())
    late.join()
    more |= {"late": late.seen.output, "history": "", "lag": 0.0}
    while len(more["history"]) < len(watched.seen.output) and more["lag"] < REACTION_SECONDS:
        more["history"] = trial.stored_output(bench.connection, bench.run_id, watched.id)
        more["lag"] = time.monotonic() - ended


def _terminate(bench: Bench, watched: Watched) -> None:
    watched.wait_for("ready")
    sandbox = bench.connection.attach(watched.id, bench.run_id)
    with translated():
        sandbox.terminate()


def _read_volume(bench: Bench, watched: Watched) -> None:
    """Read in a second sandbox what the first one has written."""
    watched.join()
    reader = bench.start("volume-2", Trial(("volume", VOLUME), mounts=True))
    reader.join()
    watched.seen.output = reader.seen.output


LIMITED = Resources(cpu=0.25, memory=128, memory_limit=128)
TRIALS: dict[str, Trial] = {
    "inside": Trial(("inside",), timeout=150, resources=LARGE),
    "driver": Trial(("driver", "DRIVER"), timeout=150, resources=LARGE, sandboxes=3),
    "input": Trial(("answer",), _answer),
    "output": Trial(("write",), _read_again),
    "exit_0": Trial(("end", "0")),
    "exit_3": Trial(("end", "3")),
    "kill": Trial(("end", "kill")),
    "not_found": Trial(()),
    "terminate": Trial(("wait",), _terminate),
    "timeout": Trial(("wait",), timeout=10),
    "out_of_memory": Trial(("fill", "256"), resources=LIMITED),
    "volume": Trial(("volume", VOLUME, "TEXT"), _read_volume, mounts=True, sandboxes=2),
}
"""The trials by name; `smoke_checks.LINES` says which lines are about each."""


def with_gpu(gpu: str) -> Trial:
    """Return the trial of a GPU type."""
    return Trial(("gpu",), resources=replace(SMALL, gpus=(gpu,)))
