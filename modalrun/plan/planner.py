"""Deployment + run spec -> the sandboxes of a run. Pure: nothing is looked up or created."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from modalrun.errors import UsageError
from modalrun.plan import catalog, resources
from modalrun.plan.deployment import Deployment, StepView
from modalrun.plan.docker_settings import CODE_FOLDER, ImageRecipe, image_recipe
from modalrun.plan.resources import Resolved, Resources
from modalrun.run.contract import DRIVER_MODULE, DYNAMIC_MODULE
from modalrun.run.manifest import ORDER_FILE
from modalrun.run.tags import MAX_NAME, MAX_TAG, TAG_PIPELINE, TAG_ROLE, TAG_RUN, TAG_STEP, fit
from modalrun.spec.fields import CREATION_RATE, INFRASTRUCTURE_RETRIES, MAX_TIMEOUT_SECONDS, Prewarm
from modalrun.spec.precedence import (
    Layers,
    Origin,
    SettingsLayer,
    Value,
    flatten,
    resolve,
    resolve_or,
)
from modalrun.spec.run_spec import Target

Mode = Literal["pipeline", "per_step"]


RUN_FIELDS = (
    "mode",
    "app_name",
    "modal_environment",
    "workspace",
    "max_parallelism",
    "synchronous",
    "infrastructure_retries",
    "prewarm",
    "creation_rate",
)
"""Settings of the run as a whole: a step can't have its own."""


@dataclass(frozen=True)
class SandboxSpec:
    """Everything that `modal.Sandbox.create` needs for one sandbox, but the values of its secrets.

    Attributes:
        command: Program and arguments.
        image: The recipe of its image.
        resources: gpu, cpu and memory.
        timeout: Seconds until Modal ends it.
        cloud: Cloud provider; None lets Modal choose.
        regions: Regions to choose from; empty lets Modal choose.
        env: Plain environment variables; never secrets.
        secrets: The names of Modal secrets.
        volumes: Modal volumes: name -> absolute path.
        workdir: Absolute path inside the sandbox.
        name: Unique among the running sandboxes of its app; set once the run exists.
        tags: What `status` and `stop` find it by; complete once the run exists.
        origins: Where each of its values came from, by setting.
    """

    command: tuple[str, ...]
    image: ImageRecipe
    resources: Resources
    timeout: int
    cloud: str | None = None
    regions: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict)
    workdir: str = CODE_FOLDER
    name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class StepPlan:
    """One step of a plan.

    Attributes:
        name: The step's invocation id.
        upstream: The names of the steps that it waits for.
        retries: How often it is tried again after a failure.
        sandbox: Its own sandbox; None in `pipeline` mode, where it runs in the run sandbox.
    """

    name: str
    upstream: tuple[str, ...] = ()
    retries: int = 0
    sandbox: SandboxSpec | None = None


@dataclass(frozen=True)
class Plan:
    """The sandboxes of a run, and where they go.

    Attributes:
        target: Modal's cloud or the local Modal server.
        mode: One sandbox for all steps, or one for each.
        environment: The Modal environment; None for the default one.
        workspace: The Modal workspace that the token has to belong to; None for any.
        app_name: The persistent app that the sandboxes belong to.
        pipeline: The pipeline's name.
        run_sandbox: The sandbox that every run has: for the steps or, in `per_step`, the driver.
        steps: The steps, parents before children.
        max_parallelism: How many steps may run at once; None for no bound of the user's.
        synchronous: Whether `submit` waits for the end of the run.
        infrastructure_retries: How often a step whose sandbox is lost is executed again.
        prewarm: Which step sandboxes are created before their turn.
        creation_rate: How many sandboxes a second are created at most.
        origins: Where the values of the run as a whole came from, by setting.
        notes: What a user should know before it runs.
        dynamic: Whether the pipeline decides while it runs which steps there are.
    """

    target: Target
    environment: str | None
    app_name: str
    pipeline: str
    run_sandbox: SandboxSpec
    mode: Mode = "pipeline"
    workspace: str | None = None
    steps: tuple[StepPlan, ...] = ()
    max_parallelism: int | None = None
    synchronous: bool = True
    infrastructure_retries: int = INFRASTRUCTURE_RETRIES
    prewarm: Prewarm = "off"
    creation_rate: float = CREATION_RATE
    origins: Mapping[str, Value] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dynamic: bool = False

    @property
    def sandboxes(self) -> tuple[SandboxSpec, ...]:
        """Every sandbox of the run: the run sandbox first, then the steps'."""
        return (self.run_sandbox, *(s.sandbox for s in self.steps if s.sandbox is not None))

    @property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """The steps in the order they can run; the steps of one layer can run side by side."""
        depth: dict[str, int] = {}
        for step in self.steps:
            depth[step.name] = 1 + max((depth[name] for name in step.upstream), default=-1)
        rows: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
        for name, row in depth.items():
            rows[row].append(name)
        return tuple(tuple(row) for row in rows)


def make_plan(
    deployment: Deployment,
    *,
    target: Target,
    source_root: Path,
    python: str,
    python_version: str,
    engine_packages: tuple[str, ...],
) -> Plan:
    """Resolve every setting of a deployment.

    Args:
        deployment: The compiled pipeline, with what the run spec and the command line say.
        target: Where the sandbox runs.
        source_root: Where files that settings name (requirements) are looked for.
        python: The interpreter inside the sandbox: "python", or a path on this machine for the
            local Modal server.
        python_version: "3.11"; that of the image.
        engine_packages: What modalrun needs in the image.

    Raises:
        UsageError: A setting is not supported, or settings contradict one another.
    """
    pipeline: Layers = {
        Origin.CODE_PIPELINE: flatten(_without_component(deployment.written)),
        Origin.COMPONENT: deployment.written.get(Origin.COMPONENT, SettingsLayer()),
    }
    own = {step.name: _flat_step(deployment, step) for step in deployment.steps}

    def build_image(docker: Mapping[str, Any], image: Any) -> tuple[ImageRecipe, list[str]]:
        return image_recipe(
            docker,
            python_version=python_version,
            engine_packages=engine_packages,
            source_root=source_root,
            local=target == "local",
            image=image,
        )

    mode: Mode = resolve_or("mode", "pipeline", pipeline).value
    maker = _Maker(deployment, pipeline, own, python, build_image, local=target == "local")
    run_sandbox, steps = maker.per_step() if mode == "per_step" else maker.pipeline_mode()
    origins = {
        name: resolve_or(name, default, pipeline)
        for name, default in (
            ("mode", "pipeline"),
            ("app_name", app_name(deployment.pipeline)),
            ("modal_environment", None),
            ("workspace", None),
            ("max_parallelism", None),
            ("synchronous", True),
            ("infrastructure_retries", INFRASTRUCTURE_RETRIES),
            ("prewarm", "off"),
            ("creation_rate", CREATION_RATE),
        )
    }
    made = Plan(
        target=target,
        mode=mode,
        environment=origins["modal_environment"].value,
        workspace=origins["workspace"].value,
        app_name=origins["app_name"].value,
        pipeline=deployment.pipeline,
        run_sandbox=run_sandbox,
        steps=steps,
        max_parallelism=origins["max_parallelism"].value,
        synchronous=origins["synchronous"].value,
        infrastructure_retries=origins["infrastructure_retries"].value,
        prewarm=origins["prewarm"].value,
        creation_rate=origins["creation_rate"].value,
        origins=origins,
        dynamic=deployment.dynamic,
    )
    unknown = catalog.unknown_names(
        [gpu for sandbox in made.sandboxes for gpu in sandbox.resources.gpus],
        [region for sandbox in made.sandboxes for region in sandbox.regions],
        [sandbox.cloud for sandbox in made.sandboxes],
    )
    return replace(made, notes=(*deployment.notes, *maker.notes(), *unknown))


class _Maker:
    """Makes the sandbox specs of one plan, and remembers what there is to say about them."""

    def __init__(
        self,
        deployment: Deployment,
        pipeline: Layers,
        own: Mapping[str, SettingsLayer],
        python: str,
        build_image: Callable[[Mapping[str, Any], Any], tuple[ImageRecipe, list[str]]],
        *,
        local: bool,
    ) -> None:
        self._deployment = deployment
        self._pipeline = pipeline
        self._own = own
        self._python = python
        self._build_image = build_image
        self._local = local
        self._images: list[tuple[tuple[Mapping[str, Any], Any], ImageRecipe]] = []
        self._general: list[str] = []
        self._of_steps: dict[str, list[str]] = {}

    def notes(self) -> list[str]:
        """Everything worth saying; the same thing about many steps is said once."""
        grouped = [f"{_some(names)}: {text}" for text, names in self._of_steps.items()]
        return [*dict.fromkeys(self._general), *grouped]

    def pipeline_mode(self) -> tuple[SandboxSpec, tuple[StepPlan, ...]]:
        """One sandbox with the pipeline's values, else the highest of the steps'."""
        different = [
            step.name
            for step in self._deployment.steps
            if step.docker is not None and step.docker != self._deployment.docker
        ]
        if different:
            raise UsageError(
                f"{_some(different)} {'has' if len(different) == 1 else 'have'} Docker settings of"
                f" {'its' if len(different) == 1 else 'their'} own, but in pipeline mode all steps"
                " share one sandbox and so one image.",
                hint="Set 'mode: per_step', where each step has its own image, or move the Docker"
                " settings to the pipeline.",
            )
        resolved = resources.of_pipeline(self._pipeline, self._own, local=self._local)
        at_once = resolve("max_parallelism", self._pipeline)
        for name, written in self._own.items():
            self._note_ineffective(name, written)
        self._general += resolved.notes
        self._note_per_step_alone()
        dynamic = self._deployment.dynamic
        command = self._command(DYNAMIC_MODULE if dynamic else "modalrun.driver.pipeline")
        sandbox = self._sandbox(command, resolved, self._deployment.docker, self._pipeline)
        if at_once is not None:
            name = "ZENML_DYNAMIC_PIPELINE_WORKER_COUNT" if dynamic else "MODALRUN_MAX_PARALLELISM"
            parallel = {name: str(at_once.value)}
            sandbox = replace(sandbox, env={**sandbox.env, **parallel})
        steps = tuple(StepPlan(s.name, s.upstream, s.retries) for s in self._deployment.steps)
        return self._as_run(sandbox), steps

    def per_step(self) -> tuple[SandboxSpec, tuple[StepPlan, ...]]:
        """A small CPU sandbox for the driver, and one with its own values for each step."""
        driver = self._sandbox(
            (
                *self._command(DYNAMIC_MODULE if self._deployment.dynamic else DRIVER_MODULE),
                ORDER_FILE,
            ),
            Resolved(
                resources.DRIVER,
                {
                    name: Value.at(value, Origin.DEFAULT, "driver")
                    for name, value in (
                        ("cpu_count", resources.DRIVER_CORES),
                        ("memory", f"{resources.DRIVER_MEMORY_MIB}MiB"),
                    )
                },
            ),
            self._deployment.docker,
            self._pipeline,
        )
        if not self._deployment.dynamic:
            # Of a dynamic pipeline the inline steps run there.
            driver = replace(driver, secrets=(), volumes={})
        steps = []
        for step in self._deployment.steps:
            written = self._own[step.name]
            resolved = resources.of_step(step.name, self._pipeline, written, local=self._local)
            self._say_of(step.name, resolved.notes)
            ignored = sorted(n for n in RUN_FIELDS if written.get(n) is not None)
            if ignored:
                text = f"{', '.join(ignored)}: no effect on a step, set it on the pipeline"
                self._say_of(step.name, [text])
            docker = self._deployment.docker if step.docker is None else step.docker
            places = {Origin.CODE_STEP: written, **self._pipeline}
            command = self._command("modalrun.driver.step")
            sandbox = self._sandbox(command, resolved, docker, places)
            if sandbox.timeout > driver.timeout:
                self._say_of(
                    step.name,
                    [f"timeout {sandbox.timeout} is cut to the run's, {driver.timeout} s"],
                )
                sandbox = _with_timeout(sandbox, driver.timeout)
            tags = {
                TAG_ROLE: "step",
                TAG_STEP: fit(step.name, MAX_TAG),
                TAG_PIPELINE: fit(self._deployment.pipeline, MAX_TAG),
            }
            steps.append(
                StepPlan(step.name, step.upstream, step.retries, replace(sandbox, tags=tags))
            )
        return self._as_run(driver), tuple(steps)

    def _command(self, module: str) -> tuple[str, ...]:
        return (self._python, "-m", "modalrun.driver.supervisor", module)

    def _sandbox(
        self,
        command: tuple[str, ...],
        resolved: Resolved,
        docker: Mapping[str, Any],
        places: Layers,
    ) -> SandboxSpec:
        timeout = resolve_or("timeout", MAX_TIMEOUT_SECONDS, places)
        region = resolve_or("region", None, places)
        others = {
            "timeout": timeout,
            "cloud": resolve_or("cloud", None, places),
            "region": region,
            "secrets": resolve_or("secrets", None, places),
            "volumes": resolve_or("volumes", None, places),
            "image": resolve_or("image", None, places),
        }
        regions = (region.value,) if isinstance(region.value, str) else tuple(region.value or ())
        return _with_timeout(
            SandboxSpec(
                command=command,
                image=self._image(docker, others["image"].value),
                resources=resolved.resources,
                timeout=0,
                cloud=others["cloud"].value,
                regions=regions,
                env={"PYTHONUNBUFFERED": "1"},
                secrets=tuple(dict.fromkeys(others["secrets"].value or ())),
                volumes=others["volumes"].value or {},
                origins={**resolved.origins, **others},
            ),
            timeout.value,
        )

    def _as_run(self, sandbox: SandboxSpec) -> SandboxSpec:
        tags = {TAG_ROLE: "run", TAG_PIPELINE: fit(self._deployment.pipeline, MAX_TAG)}
        return replace(sandbox, tags=tags)

    def _image(self, docker: Mapping[str, Any], image: Any) -> ImageRecipe:
        for known, recipe in self._images:
            if known == (docker, image):
                return recipe
        recipe, notes = self._build_image(docker, image)
        self._images.append(((docker, image), recipe))
        self._general += notes
        return recipe

    def _say_of(self, step: str, texts: Iterable[str]) -> None:
        for text in texts:
            self._of_steps.setdefault(text, []).append(step)

    def _note_per_step_alone(self) -> None:
        """What somebody wrote for a sandbox per step, although there is only one."""
        for name in ("infrastructure_retries", "prewarm", "creation_rate"):
            found = resolve(name, self._pipeline)
            if found is not None and found.value is not None:
                self._general.append(f"{name}: no effect in pipeline mode, which has one sandbox")

    def _note_ineffective(self, name: str, step: SettingsLayer) -> None:
        """In pipeline mode only what the pipeline leaves open is taken from the steps."""
        ineffective = sorted(n for n, v in step.settings.items() if v is not None and n != "gpu")
        pipeline_gpu = resolve("gpu", {Origin.CODE_PIPELINE: self._pipeline[Origin.CODE_PIPELINE]})
        if pipeline_gpu is not None and step.get("gpu") not in (None, pipeline_gpu.value):
            ineffective.append("gpu")
        if ineffective:
            self._say_of(
                name,
                [
                    f"{', '.join(sorted(ineffective))}: no effect in pipeline mode, where the"
                    " pipeline's value counts"
                ],
            )


def for_run(sandbox: SandboxSpec, run_id: str) -> SandboxSpec:
    """The run sandbox of one run: its name and tags are made from the run id, and so known."""
    return replace(
        sandbox,
        name=f"modalrun-{run_id}",
        tags={TAG_RUN: run_id, **sandbox.tags},
        env={**sandbox.env, "MODALRUN_RUN_ID": run_id},
    )


def app_name(pipeline: str) -> str:
    """The name of a pipeline's persistent Modal app."""
    return fit(f"zenml-pipeline-{pipeline}", MAX_NAME)


def _with_timeout(sandbox: SandboxSpec, timeout: int) -> SandboxSpec:
    return replace(sandbox, timeout=timeout, env={**sandbox.env, "MODALRUN_TIMEOUT": str(timeout)})


def _without_component(places: Layers) -> Layers:
    return {origin: w for origin, w in places.items() if origin is not Origin.COMPONENT}


def _flat_step(deployment: Deployment, step: StepView) -> SettingsLayer:
    return flatten(_without_component(deployment.written), step.written)


def _some(names: Sequence[str]) -> str:
    """Some steps in words, at most five by name."""
    shown = ", ".join(f"'{name}'" for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"step{'s' if len(names) > 1 else ''} {shown}{more}"
