"""Check ZenML's login, a stack, its artifact store and its registry, for `modalrun doctor`."""

from __future__ import annotations

import contextlib
from uuid import uuid4

from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.enums import StoreType
from zenml.stack import Stack

from modalrun.errors import AuthenticationError, UsageError
from modalrun.plan.image_recipe import BuiltByZenML, FromRegistry, ImageRecipe
from modalrun.spec.run_spec import RunSpec
from modalrun.util.check import Finding
from modalrun.util.text import shell_word
from modalrun.zenml_api.compiling.image_builds import credentials_for, registry_of
from modalrun.zenml_api.component import component_values
from modalrun.zenml_api.errors import first_line, translated
from modalrun.zenml_api.orchestrator_config import credentials
from modalrun.zenml_api.retry import open_store
from modalrun.zenml_api.stack_description import describe_stack
from modalrun.zenml_api.stacks import find_stack, load_stack, orchestrator_of

__all__ = [
    "Stack",
    "check_image",
    "describe_stack",
    "login",
    "problem_of",
    "round_trip",
    "stack_of",
]


def login() -> str:
    """Return the account and the project that ZenML is used as, and whose rights a run gets."""
    open_store()
    with translated():
        client = Client()
        user, project = client.active_user, client.active_project.name
        kind = "service account" if user.is_service_account else "user"
        if GlobalConfiguration().store_configuration.type == StoreType.SQL:
            rights = "no login: without a ZenML server it opens the database on this machine"
        else:
            admin = "an administrator" if user.is_admin else "no administrator"
            rights = f"the rights of this {kind}, which is {admin}"
        return f"{kind} '{user.name}', project '{project}'; a run gets {rights}"


def stack_of(spec: RunSpec | None) -> tuple[Stack, tuple[str, str] | None]:
    """Load the stack that a run would have, with our orchestrator in it, and its Modal token.

    Args:
        spec: The run spec that names it; None for the active one.

    Raises:
        NotFoundError: There is no such stack.
        UsageError: A component can't be loaded, or the orchestrator's values are wrong.
    """
    with translated():
        if spec is None:
            model = find_stack(None)
        else:
            model = find_stack(spec.stack, at=f"{spec.where(('stack',))}: ")
        return load_stack(model), credentials(component_values(orchestrator_of(model)))


def round_trip(stack: Stack) -> str:
    """Write a small object into the artifact store, read it back and remove it.

    Returns:
        The name, flavor and path of the store.

    Raises:
        UsageError, AuthenticationError: One of the three failed.
    """
    store = stack.artifact_store
    name = f"{store.name} ({store.flavor}, {store.path})"
    path = f"{store.path.rstrip('/')}/.modalrun-doctor-{uuid4().hex}"
    written = uuid4().bytes
    doing = "written to"
    try:
        with store.open(path, "wb") as file:
            file.write(written)
        doing = "read from"
        with store.open(path, "rb") as file:
            read = file.read()
        doing = "removed from"
        store.remove(path)
    except Exception as error:
        if doing != "removed from":
            with contextlib.suppress(Exception):
                store.remove(path)
        kind = AuthenticationError if isinstance(error, PermissionError) else UsageError
        raise kind(
            f"{name}: nothing can be {doing} it: {type(error).__name__}: {first_line(error)}",
            hint=f"Check its credentials: zenml artifact-store describe {shell_word(store.name)}",
        ) from error
    if read != written:
        raise UsageError(f"{name}: what was read is not what was written.")
    return name


def check_image(recipe: ImageRecipe, stack: Stack, *, docker: bool) -> Finding:
    """Check the source of an image, as far as that is possible without building it.

    Args:
        recipe: The recipe of the image, for Modal's cloud.
        stack: For its container registry.
        docker: Whether a container engine's command is on this machine.

    Raises:
        UsageError: The stack has no container registry, which the recipe needs.
    """
    base = recipe.base
    if isinstance(base, BuiltByZenML):
        registry = registry_of(stack)
        with translated():
            pair = registry.credentials
        source = f"built by ZenML, pulled from {registry.config.uri}"
        if pair is None:
            hint = "Give the registry an authentication secret or a service connector."
            return Finding("image", "warning", f"{source} without credentials", hint)
        if not docker:
            hint = "Start Docker or Podman, unless there is a build that can be used again."
            return Finding("image", "warning", f"{source}; no Docker is here", hint)
        return Finding("image", "ok", source)
    if isinstance(base, FromRegistry):
        known = credentials_for(stack, base.image) is not None
        how = "with the credentials of the stack's registry" if known else "without credentials"
        return Finding("image", "ok", f"{base.image}, pulled {how}")
    return Finding("image", "ok", str(recipe.base))


def problem_of(check: str, error: Exception) -> Finding:
    """Return the finding for an error that ZenML, or a library of a component, has raised."""
    try:
        with translated():
            raise error
    except Exception as ours:
        return Finding.of_error(check, ours)
