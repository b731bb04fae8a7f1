"""What a `per_step` run needs before its run sandbox: images for all steps, and the order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from modalrun.modal_api.images import python_path
from modalrun.plan.image_recipe import ImageRecipe, Named, RegistryCredentials
from modalrun.plan.isolated_step import as_plain
from modalrun.plan.manifest_builder import Source, make_order
from modalrun.plan.planner import Plan
from modalrun.run import manifest as orders
from modalrun.run.manifest import RunManifest
from modalrun.run.records import CreatedRun
from modalrun.submit.preflight import Job


@dataclass(frozen=True)
class Dispatched:
    """A run that is ready to be given to its run sandbox.

    Attributes:
        plan: The plan; in `per_step` mode the run sandbox's image is built and named by its id.
        secrets: Environment variables of the run sandbox that travel as a Modal secret.
        order_file: The driver's order; None in `pipeline` mode.
        metadata: What of it is kept with the run in ZenML.
    """

    plan: Plan
    secrets: Mapping[str, str] = field(repr=False)
    order_file: Path | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def dispatch(
    job: Job,
    plan: Plan,
    run: CreatedRun,
    *,
    source: Source,
    folder: Path,
    staged: Path,
    registry: RegistryCredentials | None,
) -> Dispatched:
    """Build the images of a `per_step` run and write its order; in `pipeline` mode do nothing.

    Args:
        job: The run.
        plan: Its plan, with the images of the stack's registry.
        run: Its record.
        source: Where the source tree comes from.
        folder: Where the order is written to.
        staged: The still copy of the source tree.
        registry: For images in a private registry.

    Raises:
        ModalrunError: An image can't be built, or there is no token for the driver.
    """
    if plan.mode != "per_step":
        return Dispatched(plan, run.environment)
    from modalrun.zenml_api.compiling import step_policies

    compiled, connection = job.compiled, job.connection
    secrets = {**run.environment, **connection.driver_environment()}
    images = job.modal.build_images(connection, plan, staged, registry)
    order = make_order(
        plan,
        run.id,
        images=images,
        policies=step_policies.policies(compiled),
        failure_mode=step_policies.failure_mode(compiled),
        variables=run.environment,
        source=source,
        done=run.cached,
        python_path={r: python_path(r) for r in images} if plan.target == "modal" else {},
    )
    if plan.dynamic:
        written = as_plain(compiled.deployment.written)
        docker = step_policies.pipeline_docker(compiled)
        order = replace(order, docker=docker, written=written)
    return Dispatched(
        with_driver(plan, order), secrets, write(order, folder), orders.to_metadata(order)
    )


def with_driver(plan: Plan, order: RunManifest) -> Plan:
    """A plan with the run sandbox of an order, whose image is built."""
    image = ImageRecipe(base=Named(order.driver.image))
    return replace(plan, run_sandbox=replace(plan.run_sandbox, image=image, env=order.driver.env))


def write(order: RunManifest, folder: Path) -> Path:
    """Write an order to a folder; returns the file."""
    file = folder / Path(orders.ORDER_FILE).name
    file.write_text(orders.write(order), encoding="utf-8")
    return file
