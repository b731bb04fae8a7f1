"""Build images with ZenML, and find the credentials of the stack's container registry.

Written against `zenml/pipelines/build_utils.py`, ZenML 0.98.0.
"""

from __future__ import annotations

from dataclasses import replace

from zenml.constants import ORCHESTRATOR_DOCKER_IMAGE_KEY
from zenml.container_registries import BaseContainerRegistry
from zenml.models import PipelineBuildResponse, PipelineSnapshotBase
from zenml.pipelines.build_utils import reuse_or_create_pipeline_build
from zenml.stack import Stack

from modalrun.errors import ModalrunError, RunFailedError, UsageError
from modalrun.plan.image_recipe import BuiltByZenML, FromRegistry, ImageRecipe, RegistryCredentials
from modalrun.plan.model import Plan
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.zenml_api.compiling.compile import Compiled
from modalrun.zenml_api.errors import first_line, translated
from modalrun.zenml_api.orchestrator import ModalOrchestrator

_WAYS_OUT = (
    "Start Docker or Podman; or leave 'image: source: registry' out, then Modal builds the image"
    " without Docker; or use a finished image: DockerSettings(skip_build=True, parent_image=...)."
)


def _resolved(
    recipe: ImageRecipe, stack: Stack, step: str | None, build: PipelineBuildResponse | None
) -> tuple[ImageRecipe, RegistryCredentials | None]:
    """Fill in a recipe, for a step or the pipeline; return it and the credentials of its image."""
    base = recipe.base
    if isinstance(base, BuiltByZenML):
        assert build is not None
        base = FromRegistry(_image_of(build, step))
    if not isinstance(base, FromRegistry):
        return recipe, None
    credentials = credentials_for(stack, base.image)
    return replace(recipe, base=replace(base, private=credentials is not None)), credentials


def resolve_images(plan: Plan, compiled: Compiled) -> tuple[Plan, RegistryCredentials | None]:
    """Fill in what the images of a plan need of the stack's container registry.

    Returns:
        The plan, with an image's name in place of `BuiltByZenML`, and the credentials that Modal
        needs to pull any of the images.

    Raises:
        UsageError: The stack has no container registry, or nothing here can build an image.
        RunFailedError: The build failed, or its image could not be pushed.
    """
    stack = compiled.stack
    built = any(isinstance(recipe.base, BuiltByZenML) for recipe in plan.images.values())
    build = _build(compiled.snapshot, stack) if built else None
    images: dict[str, ImageRecipe] = {}
    credentials: RegistryCredentials | None = None

    def complete(sandbox: SandboxSpec, step: str | None = None) -> SandboxSpec:
        nonlocal credentials
        key, recipe = sandbox.image, plan.images[sandbox.image]
        if step is not None and isinstance(recipe.base, BuiltByZenML):
            # ZenML builds different images for steps with the same recipe.
            key = f"{key} of {step}"
        if key not in images:
            images[key], needed = _resolved(recipe, stack, step, build)
            credentials = credentials or needed
        return replace(sandbox, image=key)

    steps = tuple(
        step if step.sandbox is None else replace(step, sandbox=complete(step.sandbox, step.name))
        for step in plan.steps
    )
    run_sandbox = complete(plan.run_sandbox)
    return replace(plan, run_sandbox=run_sandbox, steps=steps, images=images), credentials


def _build(snapshot: PipelineSnapshotBase, stack: Stack) -> PipelineBuildResponse:
    """Let ZenML build and push the images of a deployment, or reuse an earlier build."""
    registry = registry_of(stack)
    assert isinstance(stack.orchestrator, ModalOrchestrator)
    stack.orchestrator.wants_images = True
    try:
        with translated():
            stack.validate_image_builder()
            made = reuse_or_create_pipeline_build(snapshot=snapshot, allow_build_reuse=True)
    except ModalrunError:
        raise
    except Exception as error:
        if "container engine" in str(error) or "image builder" in str(error):
            raise UsageError(
                f"ZenML can't build an image here: {first_line(error)}", hint=_WAYS_OUT
            ) from error
        raise RunFailedError(
            f"ZenML could not build the image or push it to the container registry"
            f" '{registry.name}': {first_line(error)}",
            hint="--debug shows the whole traceback.",
        ) from error
    finally:
        stack.orchestrator.wants_images = False
    # There is a build whenever the orchestrator asks for one.
    assert made is not None
    return made


def registry_of(stack: Stack) -> BaseContainerRegistry:
    """Return the container registry that an image of ZenML's needs.

    Raises:
        UsageError: The stack has none.
    """
    if stack.container_registry is None:
        raise UsageError(
            f"'image: source: registry' needs a container registry, and the stack '{stack.name}'"
            " has none.",
            hint="Add one with 'zenml stack update -c <registry>'; or leave the setting out, then"
            " Modal builds the image and no registry is needed.",
        )
    return stack.container_registry


def _image_of(build: PipelineBuildResponse, step: str | None) -> str:
    try:
        return build.get_image(ORCHESTRATOR_DOCKER_IMAGE_KEY, step)
    except KeyError:
        raise UsageError(
            f"ZenML's build {build.id} holds no image for"
            f" {f'the step {step}' if step else 'the pipeline'}.",
            hint="Its images: " + (", ".join(sorted(build.images)) or "none") + ".",
        ) from None


def credentials_for(stack: Stack, image: str) -> RegistryCredentials | None:
    """Return the registry's credentials for an image; None if the image is elsewhere."""
    registry = stack.container_registry
    if registry is None or not _is_in(image, registry.config.uri):
        return None
    with translated():
        pair = registry.credentials
    return RegistryCredentials(*pair) if pair else None


def _is_in(image: str, uri: str) -> bool:
    """Return whether the name of an image is one of a registry."""
    prefix = _without_hub(uri.removeprefix("https://").rstrip("/"))
    name = _without_hub(image)
    return name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] in {"/", ":", "@"}


def _without_hub(name: str) -> str:
    """Remove Docker Hub's host, which is optional."""
    return name.removeprefix("index.docker.io/").removeprefix("docker.io/")
