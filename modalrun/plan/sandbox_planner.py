"""Resolve the settings of sandboxes: the part of planning that both modes share. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from modalrun.errors import UsageError
from modalrun.plan.deployment import CompiledStep, Deployment
from modalrun.plan.docker_settings import Driver
from modalrun.plan.environment import check_environment
from modalrun.plan.image_recipe import ImageRecipe
from modalrun.plan.resources import Resolved
from modalrun.run.contract import CODE_FOLDER, PACKAGE_FILE, TIMEOUT
from modalrun.run.manifest import MANIFEST_FILE
from modalrun.run.sandbox_spec import SandboxSpec
from modalrun.run.tags import MAX_TAG, TAG_PIPELINE, TAG_ROLE, TAG_STEP, fit
from modalrun.spec.fields import DEFAULT_TIMEOUT_SECONDS
from modalrun.spec.precedence import Layers, Origin, SettingsLayer, Value, flatten, resolve_or
from modalrun.util.modal_catalog import MAX_TIMEOUT

BuildRecipe = Callable[..., tuple[ImageRecipe, list[str]]]
"""`docker_settings.image_recipe`, bound to what all sandboxes share."""


class SandboxPlanner:
    """Make the sandbox specs of one plan, and collect origins and notes.

    Attributes:
        layers: The settings of the pipeline, flat, and the component's defaults.
        local: Whether the run is for the local Modal server.
        images: The recipes of all images so far, by key.
        origins: By step, and under `RUN_SANDBOX`, the origin of each setting.
    """

    def __init__(self, deployment: Deployment, *, build_recipe: BuildRecipe, local: bool) -> None:
        self.deployment = deployment
        self.layers: Layers = {
            Origin.CODE_PIPELINE: flatten(_without_component(deployment.layers)),
            Origin.COMPONENT: deployment.layers.get(Origin.COMPONENT, SettingsLayer()),
        }
        self.local = local
        self.images: dict[str, ImageRecipe] = {}
        self.origins: dict[str, Mapping[str, Value]] = {}
        self._build_recipe = build_recipe
        self._made: list[tuple[tuple[Any, ...], str]] = []
        self._notes: list[str] = []
        self._step_notes: dict[str, list[str]] = {}

    def step_layer(self, step: CompiledStep) -> SettingsLayer:
        """Return the settings of a step itself, merged into one layer."""
        return flatten(_without_component(self.deployment.layers), step.layers)

    def sandbox(
        self,
        name: str,
        module: str,
        *arguments: str,
        resolved: Resolved,
        docker: Mapping[str, Any],
        layers: Layers,
        variables: Mapping[str, str],
        longest: int = MAX_TIMEOUT,
        driver: Driver | None = None,
    ) -> SandboxSpec:
        """Resolve the spec of one sandbox.

        Args:
            name: The step's name, or `RUN_SANDBOX`.
            module: The module that runs in it, with `arguments`, under the supervisor.
            docker: The Docker settings of its image.
            layers: Its settings.
            variables: The user's variables that its processes must start with.
            longest: The bound on its timeout, in seconds.
        """
        values = {
            "timeout": resolve_or("timeout", DEFAULT_TIMEOUT_SECONDS, layers),
            **{
                setting: resolve_or(setting, None, layers)
                for setting in ("gpu_wait", "cloud", "region", "secrets", "volumes", "image")
            },
        }
        self.origins[name] = {**resolved.origins, **values}
        timeout = min(values["timeout"].value, longest)
        region = values["region"].value
        volumes = values["volumes"].value or {}
        _check_mount_points(name, volumes, values["volumes"].source)
        with_gpu = bool(resolved.resources.gpus)
        image = self._image(docker, values["image"].value, driver, with_gpu)
        env = {
            **variables,
            "PYTHONUNBUFFERED": "1",
            TIMEOUT: str(timeout),
            "PYTHONPATH": self.images[image].python_path,
        }
        return SandboxSpec(
            command=("python3", "-m", "modalrun.driver.supervisor", module, *arguments),
            image=image,
            resources=resolved.resources,
            timeout=timeout,
            keeps_entrypoint=self.images[image].keep_entrypoint,
            gpu_wait=values["gpu_wait"].value,
            cloud=values["cloud"].value,
            regions=(region,) if isinstance(region, str) else tuple(region or ()),
            env=env,
            secrets=tuple(dict.fromkeys(values["secrets"].value or ())),
            volumes=volumes,
            tags={
                TAG_ROLE: "step" if name else "run",
                **({TAG_STEP: fit(name, MAX_TAG)} if name else {}),
                TAG_PIPELINE: fit(self.deployment.pipeline, MAX_TAG),
            },
        )

    def note(self, *texts: str) -> None:
        """Add notes about the run as a whole."""
        self._notes += texts

    def note_step(self, step: str, *texts: str) -> None:
        """Add notes about a step."""
        for text in texts:
            self._step_notes.setdefault(text, []).append(step)

    def notes(self) -> tuple[str, ...]:
        """Return all notes; the same note about many steps comes once."""
        grouped = (f"{some_steps(names)}: {text}" for text, names in self._step_notes.items())
        return (*dict.fromkeys(self._notes), *grouped)

    def _image(
        self, docker: Mapping[str, Any], image: Any, driver: Driver | None, with_gpu: bool
    ) -> str:
        wanted = (docker, image, driver, with_gpu)
        for made, key in self._made:
            if made == wanted:
                return key
        recipe, notes = self._build_recipe(docker, image=image, driver=driver, gpu=with_gpu)
        check_environment("the Docker settings", recipe.variables)
        self.note(*notes)
        keys = {known: key for key, known in self.images.items()}
        key = keys.get(recipe, f"image-{len(keys)}")
        self.images[key] = recipe
        self._made.append((wanted, key))
        return key


def _check_mount_points(step: str, volumes: Mapping[str, str], source: str) -> None:
    """Raise UsageError for a volume over another one, or over the files that modalrun mounts.

    Modal ends a sandbox that has a volume on a path with files: "cannot mount volume on non-empty
    path" (reports of several users, 2026-11-28).
    """
    owner = f"step '{step}'" if step else "the pipeline"
    by_path: dict[str, str] = {}
    for name, path in volumes.items():
        other = by_path.setdefault(path, name)
        if other != name:
            raise UsageError(
                f"{owner}: the volumes '{other}' and '{name}' are both mounted at {path}.",
                hint="The volumes of all places join by name: mount one of them elsewhere.",
            )
        files = (PurePosixPath(PACKAGE_FILE), PurePosixPath(MANIFEST_FILE))
        for own in (CODE_FOLDER, *(str(file.parent) for file in files)):
            if PurePosixPath(own).is_relative_to(path):
                raise UsageError(
                    f"{owner}: the volume '{name}' can't be mounted at {path} ({source}): modalrun"
                    f" puts its files into {own}, and Modal mounts volumes on empty paths only.",
                    hint="Mount it elsewhere, such as at '/data'.",
                )


def some_steps(names: Sequence[str]) -> str:
    """Return the names of some steps as text, at most five of them."""
    shown = ", ".join(f"'{name}'" for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"step{'s' if len(names) > 1 else ''} {shown}{more}"


def _without_component(layers: Layers) -> Layers:
    return {origin: layer for origin, layer in layers.items() if origin is not Origin.COMPONENT}
