"""Translate `DockerSettings` into the recipe of a Modal image. Pure: nothing is built.

Every field of `zenml.config.docker_settings.DockerSettings` (ZenML 0.98.0) is translated, noted as
having no effect, or refused; a field of a later ZenML is refused. `docs/images.md` has the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

from modalrun.errors import UsageError
from modalrun.plan import image_layers, requirements
from modalrun.plan.image_layers import GATHERED, Remarks
from modalrun.plan.image_recipe import (
    Base,
    BuiltByZenML,
    FromDockerfile,
    FromRegistry,
    ImageRecipe,
    Named,
    Pairs,
    Slim,
)
from modalrun.spec.fields import ImageSetting
from modalrun.util.credentials import refuse_private_folder
from modalrun.util.dockerfile import instructions, not_executed

Driver = Literal["static", "dynamic"]
"""The process of a `per_step` run that creates step sandboxes. That of a dynamic pipeline shares
its sandbox with the user's code."""

_TRANSLATED = frozenset(
    {
        *("parent_image", "dockerfile", "build_context_root", "parent_image_build_config"),
        *("build_config", "skip_build", "prevent_build_reuse", "dockerignore"),
        *("python_package_installer", "python_package_installer_cache_mount"),
        *("python_package_installer_args", "disable_automatic_requirements_detection"),
        *("replicate_local_python_environment", "pyproject_path", "pyproject_export_command"),
        *(GATHERED, "requirements", "required_integrations", "install_stack_requirements"),
        *("local_project_install_command", "apt_packages", "environment", "runtime_environment"),
    }
)

_ON_BY_DEFAULT = frozenset(
    {
        *("copy_files", "copy_global_config", "install_deployment_requirements"),
        *("allow_including_files_in_images", "allow_download_from_code_repository"),
        "allow_download_from_artifact_store",
    }
)

_NO_EFFECT = {
    "image_tag": "nothing is pushed, and Modal identifies an image by its contents",
    "target_repository": "nothing is pushed to a registry",
    "install_deployment_requirements": "it is about ZenML's deployments, not about runs",
    "source_files": "the source tree is mounted into the sandbox",
    "copy_global_config": "ZenML has dropped it",
    # modal.com/docs/guide/existing-images, read 2026-11-27.
    "user": "Modal ignores the user of an image, and runs sandboxes as root",
    "required_hub_plugins": "ZenML has dropped it",
}
"""Settings that don't change the contents of the sandbox: noted, not refused."""

_REFUSED = {
    "build_options": "ZenML has dropped it; use 'parent_image_build_config' with a 'dockerfile'"
}

_HARMLESS_OPTIONS = frozenset({"pull", "rm", "forcerm", "labels", "cache_from", "cachefrom"})
"""Docker build options that steer Docker's cache or label the image; its contents stay the same."""


def image_recipe(
    docker: Mapping[str, Any],
    *,
    python_version: str,
    engine_packages: tuple[str, ...],
    source_root: Path,
    local: bool,
    image: ImageSetting | Mapping[str, Any] | None = None,
    driver: Driver | None = None,
    gpu: bool = False,
) -> tuple[ImageRecipe, list[str]]:
    """Translate Docker settings into the recipe of one sandbox's image, and notes for the user.

    Args:
        docker: The fields of `DockerSettings` that were set, as plain values, and under `GATHERED`
            the packages that ZenML gathered for them.
        python_version: Major and minor version, "3.11".
        engine_packages: The packages that modalrun needs in the image ("zenml==0.98.0", ...).
        source_root: The folder that relative paths in the settings are relative to.
        local: Whether the run is for the local Modal server, which builds no image.
        image: The setting `image`; None for an image made from the Docker settings.
        gpu: Whether the sandbox has a GPU, whose use is measured.

    Raises:
        UsageError: Settings can't be translated (on Modal), a file that they name is missing, or
            they contradict one another. All problems are in the one message.
    """
    setting = ImageSetting.model_validate(image) if isinstance(image, Mapping) else image
    remarks = Remarks(local)
    if local and any(docker.get(key) for key in docker if key != GATHERED):
        remarks.note(
            "Docker settings are recorded, not built: the local Modal server runs this Python"
            " (unless it was started with --isolated-python)"
        )
    if setting is not None and setting.name is not None:
        _note_unused(docker, f"'image: name:' uses the image {setting.name}", remarks)
        recipe = ImageRecipe(Named(setting.name))
    elif docker.get("skip_build"):
        recipe = _finished(docker, remarks)
    elif setting is None or setting.source is None:
        recipe = _from_settings(docker, python_version, engine_packages, source_root, remarks)
    elif local:
        remarks.note("'image: source: registry' has no effect locally: nothing is built or pulled")
        recipe = ImageRecipe(Slim(python_version))
    else:
        recipe = ImageRecipe(BuiltByZenML())
    if driver == "static":
        recipe = _of_driver(recipe, python_version, engine_packages)
    elif driver == "dynamic" and not recipe.packages:
        recipe = _with_modal(recipe, engine_packages, remarks)
    if gpu and recipe.packages:
        # Last: the layers below are those of the steps without a GPU.
        recipe = replace(recipe, packages=(*recipe.packages, image_layers.GPU_FIGURES))
    recipe = image_layers.with_git(recipe, source_root, remarks)
    if remarks.problems:
        raise _refusal(remarks.problems)
    # The driver's own image has none.
    keep = setting is not None and bool(setting.keep_entrypoint) and driver != "static"
    return replace(recipe, keep_entrypoint=keep), remarks.notes


def dockerignore(docker: Mapping[str, Any]) -> str | None:
    """Return the .dockerignore file that is set for the source tree; None for the usual one."""
    name = (docker.get("build_config") or {}).get("dockerignore") or docker.get("dockerignore")
    return None if name is None else str(name)


def _note_unused(docker: Mapping[str, Any], reason: str, remarks: Remarks, used: str = "") -> None:
    """Note the settings that a finished image makes useless."""
    skipped = {GATHERED, "skip_build", used, *_ON_BY_DEFAULT}
    names = sorted(name for name, value in docker.items() if value and name not in skipped)
    if names:
        remarks.note(f"the Docker settings {', '.join(names)} have no effect: {reason} as it is")


def _finished(docker: Mapping[str, Any], remarks: Remarks) -> ImageRecipe:
    parent = docker.get("parent_image")
    if not parent:
        raise UsageError(
            "'skip_build' needs a 'parent_image': with it the parent image is used as it is.",
            hint="Name the image, or remove 'skip_build'.",
        )
    _note_unused(docker, f"'skip_build' uses {parent}", remarks, "parent_image")
    return ImageRecipe(FromRegistry(str(parent)))


def _of_driver(recipe: ImageRecipe, python_version: str, engine: tuple[str, ...]) -> ImageRecipe:
    """Return the small image of a driver that runs no user code, instead of the pipeline's.

    Variables and installer stay: they may be how a proxy or a package index is reached.
    """
    return replace(
        recipe,
        base=Slim(python_version),
        apt_packages=(),
        packages=(image_layers.engine_layer(engine),),
        project_install=None,
        force_build=False,
    )


def _with_modal(recipe: ImageRecipe, engine: tuple[str, ...], remarks: Remarks) -> ImageRecipe:
    """Add the Modal SDK to a finished image, which has only what ZenML and the steps need."""
    modal = tuple(line for line in engine if requirements.project(line) == "modal")
    remarks.note(
        f"{', '.join(modal)} is added to the image {recipe.base}: a dynamic pipeline in 'per_step'"
        " mode creates its step sandboxes from there"
    )
    return replace(recipe, packages=(image_layers.engine_layer(modal),))


def _from_settings(
    docker: Mapping[str, Any],
    python_version: str,
    engine: tuple[str, ...],
    source_root: Path,
    remarks: Remarks,
) -> ImageRecipe:
    _check_fields(docker, remarks)
    base, base_forced = _base(docker, python_version, source_root, remarks)
    main_forced = _main_build(docker, remarks)
    return ImageRecipe(
        base=base,
        environment=image_layers.variables(docker, "environment", remarks),
        apt_packages=image_layers.apt_packages(docker, remarks),
        packages=image_layers.python_packages(docker, engine, source_root, remarks),
        installer="pip" if docker.get("python_package_installer") == "pip" else "uv",
        installer_args=image_layers.installer_args(docker),
        project_install=docker.get("local_project_install_command") or None,
        runtime_environment=image_layers.variables(docker, "runtime_environment", remarks),
        force_build=bool(docker.get("prevent_build_reuse")) or base_forced or main_forced,
    )


def _check_fields(docker: Mapping[str, Any], remarks: Remarks) -> None:
    for name, value in sorted(docker.items()):
        is_set = value is False if name in _ON_BY_DEFAULT else bool(value)
        if not is_set or name in _TRANSLATED:
            continue
        if name in _NO_EFFECT or name in _ON_BY_DEFAULT:
            reason = _NO_EFFECT.get(name, "the source tree is mounted into the sandbox")
            remarks.note(f"the Docker setting {name} has no effect: {reason}")
        else:
            reason = _REFUSED.get(name, "this version of modalrun doesn't know it")
            remarks.refuse(f"'{name}': {reason}")
    mount = docker.get("python_package_installer_cache_mount")
    if mount and "type=cache" in mount.replace(" ", "").split(","):
        remarks.note(
            "the Docker setting python_package_installer_cache_mount has no effect: Modal keeps"
            " finished layers instead"
        )
    elif mount:
        remarks.refuse(
            f"'python_package_installer_cache_mount: {mount}': Modal's builder takes no mounts;"
            " use a 'dockerfile', or 'image: source: registry'"
        )


def _base(
    docker: Mapping[str, Any], python_version: str, source_root: Path, remarks: Remarks
) -> tuple[Base, bool]:
    """Return the base of the layers, and whether it is built anew."""
    parent, dockerfile = docker.get("parent_image"), docker.get("dockerfile")
    if not dockerfile:
        for name in ("build_context_root", "parent_image_build_config"):
            if docker.get(name):
                remarks.note(f"the Docker setting {name} has no effect without 'dockerfile'")
        return (FromRegistry(str(parent)) if parent else Slim(python_version)), False
    if parent:
        remarks.note("the Docker setting parent_image has no effect: 'dockerfile' has its own FROM")
    path = requirements.resolve_path(str(dockerfile), source_root)
    if remarks.local and not path.is_file():
        remarks.note(f"there is no Dockerfile {path}")
        return Slim(python_version), False
    return _from_dockerfile(docker, path, source_root, remarks)


def _from_dockerfile(
    docker: Mapping[str, Any], path: Path, source_root: Path, remarks: Remarks
) -> tuple[Base, bool]:
    text = requirements.read_text(path, "Dockerfile", "dockerfile")
    config = docker.get("parent_image_build_config") or {}
    build_args, force = _build_options("parent_image_build_config", config, remarks)
    root, ignore = docker.get("build_context_root"), config.get("dockerignore")
    context = requirements.resolve_path(str(root), source_root) if root else None
    if context is not None and not context.is_dir():
        raise UsageError(f"'build_context_root' of the Docker settings: no folder {context}.")
    if context is not None:
        refuse_private_folder(context, "The build context", "Set 'build_context_root' to a folder.")
    if remarks.local:
        _note_runs(text, path.name, remarks)
    for line in _copy_instructions(text):
        if context is None:
            remarks.refuse(
                f"'dockerfile': {path.name} has '{line}', but 'build_context_root' is not set"
                " and so there is nothing to copy from; set it to a folder"
            )
        elif line.upper().startswith("ADD"):
            remarks.refuse(
                f"'dockerfile': {path.name} has '{line}': Modal copies files of the build"
                " context with COPY only; write COPY"
            )
        elif "$" in line.rpartition(" ")[0]:
            remarks.refuse(
                f"'dockerfile': {path.name} has '{line}': Modal takes no variables in copied"
                " paths; write the path out"
            )
    ignored = requirements.resolve_path(ignore, source_root) if ignore else None
    return FromDockerfile(path, context, ignored, build_args), force


def _note_runs(dockerfile: str, name: str, remarks: Remarks) -> None:
    """Note the `RUN` lines that have no effect on the local Modal server."""
    runs = [rest for instruction, rest in instructions([dockerfile]) if instruction == "RUN"]
    never = not_executed(runs, installs=True)
    for run in dict.fromkeys(not_executed(runs, installs=False)):
        unless = "" if run in never else " (unless it was started with --isolated-python)"
        remarks.note(
            f"the local Modal server does not execute a line of {name}{unless}:"
            f" RUN {shorten(run, 200)}"
        )


def _copy_instructions(dockerfile: str) -> Iterator[str]:
    """Yield the instructions that copy from the build context."""
    for line in re.sub(r"\\\n\s*", " ", dockerfile).splitlines():
        instruction, _, rest = line.strip().partition(" ")
        sources = [part for part in rest.split() if not part.startswith("--")]
        copies = instruction.upper() == "COPY" and "--from=" not in rest
        adds = instruction.upper() == "ADD" and sources and "://" not in sources[0]
        if copies or adds:
            yield line.strip()


def _main_build(docker: Mapping[str, Any], remarks: Remarks) -> bool:
    """Return whether `build_config` demands a new build."""
    build_args, force = _build_options("build_config", docker.get("build_config") or {}, remarks)
    if build_args:
        names = ", ".join(name for name, _ in build_args)
        remarks.refuse(
            f"'build_config.build_options.build_args' ({names}): only a Dockerfile of your own"
            " reads build arguments; write them under 'environment', or for a 'dockerfile'"
            " under 'parent_image_build_config'"
        )
    return force


def _build_options(section: str, config: Mapping[str, Any], remarks: Remarks) -> tuple[Pairs, bool]:
    """Return build arguments and `no_cache`; note or refuse the other Docker build options."""
    build_args: dict[str, Any] = {}
    force = False
    for name, value in sorted((config.get("build_options") or {}).items()):
        if name in {"build_args", "buildargs"}:
            build_args.update(value or {})
        elif name in {"no_cache", "nocache"}:
            force |= bool(value)
        elif value in (None, False) or (name, value) == ("platform", "linux/amd64"):
            continue
        elif name in _HARMLESS_OPTIONS:
            setting = f"{section}.build_options.{name}"
            remarks.note(f"the Docker setting {setting} has no effect on Modal")
        else:
            remarks.refuse(
                f"'{section}.build_options.{name}': Modal's builder has no such option; remove"
                " it, or let Docker build: 'image: {source: registry}'"
            )
    return tuple(sorted((name, str(value)) for name, value in build_args.items())), force


def _refusal(problems: list[str]) -> UsageError:
    if len(problems) == 1:
        message = f"The Docker setting {problems[0]}."
    else:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        message = f"These Docker settings can't be turned into a Modal image:{listed}"
    return UsageError(
        message,
        hint="'DockerSettings(skip_build=True, parent_image=...)' uses an image as it is, and"
        " 'image: {source: registry}' one that ZenML builds with Docker.",
    )
