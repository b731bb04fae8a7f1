"""Turn a run spec into a compiled pipeline and its priced plan. Nothing is created."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Collection
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from modalrun.errors import UsageError
from modalrun.modal_api.configuration import configured_environment, local_server_note
from modalrun.plan import deployment_file, docker_settings, pricing, store_credentials
from modalrun.plan.deployment import Deployment
from modalrun.plan.deployment_file import DeploymentFile
from modalrun.plan.foreign_docker import check_foreign_docker
from modalrun.plan.model import Plan
from modalrun.plan.planner import make_plan
from modalrun.plan.pricing import LIST_PRICES, Cost
from modalrun.plan.stack import (
    StackDescription,
    has_private_address,
    private_server,
    problems_on_modal,
    wrong_stack,
)
from modalrun.run.run_plan import Target
from modalrun.spec.overrides import command_line
from modalrun.spec.precedence import Origin, resolve
from modalrun.spec.run_spec import RunSpec, check_spec
from modalrun.spec.spec_record import SpecRecord
from modalrun.spec.step_keys import for_steps
from modalrun.spec.yaml_source import YamlSource
from modalrun.submit.runtime_packages import engine_packages
from modalrun.submit.source.root import check_modules, check_root
from modalrun.submit.source.tree import SourceSelection
from modalrun.util import garbage_collection, timeline
from modalrun.util.paths import checked_path, user_path
from modalrun.zenml_api import config_files
from modalrun.zenml_api.compiling.module_places import code_folders
from modalrun.zenml_api.process import zenml_process

if TYPE_CHECKING:
    from modalrun.zenml_api.compiling.compile import Compiled


@dataclass(frozen=True)
class PricedPlan:
    """A plan, its price, and what keeps its stack from working with the target.

    Attributes:
        cost: What they can cost at most, at Modal's list prices.
        stack: The stack that the deployment is compiled for.
        source: Which files of the source tree go.
        problems: Why the stack can't be used with the target; empty if it can.
        no_login: Why the sandboxes can't log in to the artifact store; empty if they can.
        usage: What the last runs have used, a line; empty if nothing is known or to be changed.
    """

    plan: Plan
    cost: Cost
    stack: StackDescription
    source: SourceSelection
    spec: RunSpec
    problems: tuple[str, ...] = ()
    no_login: tuple[str, ...] = ()
    usage: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """The plan's notes, and those for who weighs whether to run it."""
        ceiling = pricing.ceiling_note(self.plan, self.cost)
        return (*self.plan.notes, *([ceiling] if ceiling else []), *self.stack_notes)

    @property
    def stack_notes(self) -> tuple[str, ...]:
        """What may keep the run from working with its stack on Modal, beside the problems."""
        if self.plan.target != "modal":
            return ()
        server = self.stack.server
        return (
            *(f"'submit' will refuse this run: {text}" for text in self.no_login),
            *([private_server(server)] if server and has_private_address(server) else []),
        )

    def check_stack(self) -> None:
        """Refuse a stack that a run can't have with the target.

        Raises:
            UsageError: The stack needs this machine, or its artifact store what is in the
                environment here.
        """
        if self.plan.target == "modal" and (self.problems or self.no_login):
            raise wrong_stack(self.stack, self.problems, self.no_login)


def plan_spec(spec: RunSpec) -> PricedPlan:
    """Plan a run spec and price the plan. A deployment file is planned without ZenML.

    Raises:
        ModalrunError: The spec, the pipeline, the stack or a setting is wrong, or ZenML's server
            refuses or can't be reached.
    """
    path = deployment_path(spec)
    if path is None:
        check_root(spec.source_root, spec.root_hint)
        with zenml_process(spec.source_root):
            from modalrun.observe.used_before import used_before

            compiled = load_deployment(spec, looks=True)
            found = plan_deployment(compiled.deployment, compiled.stack_description, spec)
            return replace(found, usage=used_before(found.plan) or "")
    with garbage_collection.paused():
        file = deployment_file.read(path)
        deployment, spec = of_file(file, _with_values_of(spec, path, file))
        return plan_deployment(deployment, file.stack, spec)


def plan_deployment(
    deployment: Deployment,
    stack: StackDescription,
    spec: RunSpec,
    *,
    skipped: Collection[str] = (),
) -> PricedPlan:
    """Plan a compiled deployment and price the plan. Its images have the Python of this process.

    Args:
        skipped: Steps that the run takes from an earlier one.

    Raises:
        UsageError: A setting is not supported, or settings contradict one another.
    """
    on_modal = spec.target == "modal"
    plan = make_plan(
        deployment,
        target=spec.target,
        source_root=spec.source_root,
        python_version=".".join(platform.python_version_tuple()[:2]),
        engine_packages=engine_packages(built=on_modal, server=config_files.has_server()),
        environment=configured_environment(spec.target),
    )
    if note := local_server_note(spec.target):
        plan = replace(plan, notes=(*plan.notes, note))
    for image in plan.images.values():
        for folder in code_folders(spec.source_root, {"environment": image.variables})[1:]:
            check_modules(folder)
    problems = problems_on_modal(stack) if on_modal else ()
    no_login = store_credentials.missing(stack, plan, deployment)
    if not on_modal:
        # A machine of a cloud may have credentials of its own, which the sandboxes here use too.
        plan = replace(plan, notes=(*plan.notes, *no_login))
    source = _source_selection(plan, deployment, stack, spec)
    cost = pricing.cost(plan, LIST_PRICES, skipped=skipped)
    return PricedPlan(plan, cost, stack, source, spec, tuple(problems), tuple(no_login))


def _source_selection(
    plan: Plan, deployment: Deployment, stack: StackDescription, spec: RunSpec
) -> SourceSelection:
    """Return which files go. Only the user, and code of theirs, can name credential files."""
    by_user = {Origin.COMMAND_LINE, Origin.SPEC_PIPELINE}
    if spec.own_code:
        by_user.add(Origin.CODE_PIPELINE)
    key = ("settings", "orchestrator", "source_include")
    given = spec.rerun is not None and spec.rerun.given.gives(key)
    if spec.rerun is not None and spec.rerun.compiles:
        by_user = {Origin.COMMAND_LINE} if given else set()
    named = resolve("source_include", deployment.layers)
    return SourceSelection(
        spec.source_root,
        docker_settings.dockerignore(deployment.docker),
        plan.settings.source_include,
        named is not None and named.origin in by_user,
        plan.settings.source_include if given else (),
        () if deployment.docker.get("local_project_install_command") else deployment.modules,
        tuple(code_folders(spec.source_root, deployment.docker)),
        spec.scripted,
        named,
        stack.orchestrator or "NAME",
    )


def load_deployment(spec: RunSpec, *, looks: bool = False) -> Compiled:
    """Compile the pipeline of a run spec, or read the compiled one from its file or from ZenML.

    Call it inside `zenml_process`.

    Args:
        looks: Whether the caller only looks at it, and nothing may be stored in ZenML.

    Raises:
        ModalrunError: As for `plan_spec`.
    """
    # ZenML and the user's modules print to stdout while they are imported; stdout is for data.
    with garbage_collection.paused(), redirect_stdout(sys.stderr):
        with timeline.phase("import ZenML"):
            from modalrun.zenml_api.compiling import compile, snapshots
            from modalrun.zenml_api.retry import open_store
        with timeline.phase("open ZenML's store"):
            open_store()
        path = deployment_path(spec)
        if path is not None:
            return snapshots.from_file(deployment_file.read(path), spec)
        if spec.deployment is not None:
            compiled = snapshots.from_zenml(spec.deployment, spec)
            _check_modules(compiled.deployment, spec)
        else:
            compiled = compile.compile_spec(spec, looks=looks)
        if spec.rerun is None:
            return compiled
        from modalrun.zenml_api import reruns

        return reruns.as_rerun(compiled, spec, spec.rerun)


def plan_of_run(run_id: str, target: Target) -> PricedPlan:
    """Plan the deployment of a run as it was submitted. Call it inside `zenml_process`.

    A value that its run spec or command line has set has that as its origin.

    Raises:
        NotFoundError: There is no such run, or its deployment was deleted.
        UsageError: The stack was deleted, or can't be loaded here.
    """
    from modalrun.zenml_api.gateway import ZENML

    file, none = Path(f"run {run_id}"), command_line(())
    spec = check_spec(YamlSource(file, {"deployment": run_id}, {}), none, target=target)
    if (record := SpecRecord.of(ZENML.deployment_of(run_id).environment)) is not None:
        # The deployment has the same values, as if its code had set them.
        given = check_spec(YamlSource(file, dict(record.file), {}), record.command_line(none))
        spec = replace(spec, layers=given.layers, step_layers=given.step_layers)
    with garbage_collection.paused(), redirect_stdout(sys.stderr):
        compiled = ZENML.load_deployment_of_run(run_id, spec)
    return plan_deployment(compiled.deployment, compiled.stack_description, spec)


def of_file(file: DeploymentFile, spec: RunSpec) -> tuple[Deployment, RunSpec]:
    """Return the deployment of a file with the values of a run spec, and the spec for its steps.

    Raises:
        UsageError: The spec names a step that there is not, a run name with an unknown
            placeholder, or Docker settings that only the pipeline's own code may have.
    """
    compiled_steps = file.snapshot["step_configurations"].items()
    steps = {name: step["config"].get("name", name) for name, step in compiled_steps}
    if name := spec.run_configuration.get("run_name"):
        own = file.snapshot["pipeline_configuration"].get("substitutions")
        spec.check_run_name(name, own or ())
    deployment = file.deployment
    spec = for_steps(spec, steps, deployment.pipeline, dynamic=deployment.dynamic)
    if (cache := spec.run_configuration.get("enable_cache")) is not None:
        deployment = deployment.with_caching(bool(cache))
    deployment = replace(deployment, notes=(*deployment.notes, *spec.notes))
    deployment = deployment.with_layers(spec.layers, spec.step_layers)
    check_foreign_docker(deployment, spec.source_root, spec.layers, spec.step_layers)
    return deployment, spec


def compile_to_file(spec: RunSpec, path: Path) -> tuple[PricedPlan, Path | None]:
    """Compile the pipeline of a run spec to a deployment file.

    Returns:
        Its plan; and the source root, if the file can't name it: it is not below its folder.

    Raises:
        ModalrunError: As for `plan_spec`; or the file can't be written.
    """
    if spec.deployment is not None:
        raise spec.error(
            ("deployment",),
            "a deployment file is compiled already; 'compile' needs a 'pipeline'.",
            "Override settings where you plan or submit: '--set', or a run spec with 'deployment'.",
        )
    folder = checked_path(path, "--output").resolve().parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder} to write {path.name} to.")
    check_root(spec.source_root, spec.root_hint)
    with zenml_process(spec.source_root):
        compiled = load_deployment(spec)
        # A setting that can't be planned is an error now, not at the first use of the file.
        planned = plan_deployment(compiled.deployment, compiled.stack_description, spec)
        from modalrun.zenml_api.compiling.conditions import conditions_of

        on_server = compiled.stack_description.server is not None
        deployment_file.write(
            path,
            DeploymentFile(
                deployment=compiled.deployment,
                snapshot=compiled.snapshot.model_dump(mode="json"),
                stack=compiled.stack_description,
                zenml_version=version("zenml"),
                source_root=os.path.relpath(spec.source_root, folder),
                target=spec.target,
                source_code=compiled.source_code,
                conditions=conditions_of(compiled, spec.target) if on_server else None,
            ),
        )
    return planned, None if spec.source_root.is_relative_to(folder) else spec.source_root


def deployment_path(spec: RunSpec) -> Path | None:
    """Return the deployment file of a run spec; None if it names a snapshot or a pipeline."""
    if spec.deployment is None:
        return None
    path = spec.source.path.resolve().parent / user_path(spec.deployment, "'deployment'")
    is_file = path.suffix == ".json" or "/" in spec.deployment or path.is_file()
    return path.resolve() if is_file else None


def with_file_values(spec: RunSpec) -> RunSpec:
    """Return the spec with target and source root of its deployment file where it names none.

    Raises:
        UsageError: There is no such file, it is damaged, or names a source root that is not below
            its own folder; or the source root is a private folder, or lacks the steps' modules.
    """
    path = deployment_path(spec)
    if path is None:
        check_root(spec.source_root, spec.root_hint)
        return spec
    return _with_values_of(spec, path, deployment_file.read(path))


def _with_values_of(spec: RunSpec, path: Path, file: DeploymentFile) -> RunSpec:
    if not spec.has_source_root:
        spec = replace(spec, source_root=_source_root_of(path, file.source_root))
    if not spec.has_target:
        spec = replace(spec, target=file.target)
    check_root(spec.source_root, spec.root_hint)
    _check_modules(file.deployment, spec)
    return spec


def _check_modules(deployment: Deployment, spec: RunSpec) -> None:
    """Refuse a source root without the modules of the steps: it is another project's, or none."""
    for module in deployment.modules:
        path = module.replace(".", "/")
        files = (spec.source_root / f"{path}{end}" for end in (".py", "/__init__.py"))
        # Unlike Path.is_file, it takes any text.
        if not any(map(os.path.isfile, files)):
            raise UsageError(
                f"The deployment was compiled from {path}.py, which {spec.source_root} does not"
                " hold.",
                hint=spec.root_hint,
            )


def _source_root_of(path: Path, named: str) -> Path:
    """Return the source root that a deployment file names, if it may name it.

    Whoever made the file must not choose what is uploaded from this machine.
    """
    folder = path.parent
    root = (folder / checked_path(named, f"The source root in {path}")).resolve()
    hint = (
        "Check that it comes from somebody you trust, and name the folder yourself:"
        " '--source-root FOLDER', or 'source_root:' in a run spec."
    )
    if Path(named).is_absolute() or not root.is_relative_to(folder):
        raise UsageError(
            f"The deployment file {path} names the source root {named}, which is not below its own"
            " folder.",
            hint=hint,
        )
    if not root.is_dir():
        raise UsageError(
            f"The deployment file {path} names the source root {named}, and there is no folder"
            f" {root}.",
            hint=hint,
        )
    return root
