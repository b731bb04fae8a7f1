"""`DockerSettings` -> the recipe of a Modal image. Pure: a recipe is a value, nothing is built.

Every field of `zenml.config.docker_settings.DockerSettings` (ZenML 0.98.0) is translated, noted as
having no effect, or refused; a field of a later ZenML is refused. `docs/images.md` has the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modalrun.errors import UsageError
from modalrun.plan import docker_files, requirement_lines
from modalrun.plan.image_recipe import (
    CODE_FOLDER,
    Base,
    BuiltByZenML,
    FromDockerfile,
    FromRegistry,
    ImageRecipe,
    Named,
    Packages,
    Pairs,
    Slim,
)
from modalrun.spec.fields import ImageSetting

__all__ = [
    "CODE_FOLDER",
    "GATHERED",
    "ImageRecipe",
    "dockerignore",
    "image_recipe",
    "merged_docker",
]

GATHERED = "gathered_requirements"
"""The key under which a deployment carries, next to the Docker settings, what ZenML gathered for
them where it was compiled: {"packages": [{"origin": ..., "lines": [...]}], "apt": [...]}."""

_TRANSLATED = frozenset(
    {
        GATHERED,
        "parent_image",
        "dockerfile",
        "build_context_root",
        "parent_image_build_config",
        "build_config",
        "skip_build",
        "prevent_build_reuse",
        "python_package_installer",
        "python_package_installer_cache_mount",
        "python_package_installer_args",
        "disable_automatic_requirements_detection",
        "replicate_local_python_environment",
        "pyproject_path",
        "pyproject_export_command",
        "requirements",
        "required_integrations",
        "install_stack_requirements",
        "local_project_install_command",
        "apt_packages",
        "environment",
        "runtime_environment",
        "user",
        "dockerignore",
    }
)

_ON_BY_DEFAULT = frozenset(
    {
        "copy_files",
        "copy_global_config",
        "install_deployment_requirements",
        "allow_including_files_in_images",
        "allow_download_from_code_repository",
        "allow_download_from_artifact_store",
    }
)

_NO_EFFECT = {
    "image_tag": "nothing is pushed, and Modal finds an image by what it is made of",
    "target_repository": "nothing is pushed to a registry",
    "install_deployment_requirements": "it is about ZenML's deployments, not about runs",
    "source_files": "the source tree is mounted into the sandbox",
    "copy_global_config": "ZenML has dropped it",
    "required_hub_plugins": "ZenML has dropped it",
}
"""Settings that change nothing about what is in the sandbox: said, not refused."""

_REFUSED = {
    "build_options": "ZenML has dropped it; use 'parent_image_build_config' with a 'dockerfile'",
}

_HARMLESS_OPTIONS = frozenset({"pull", "rm", "forcerm", "labels", "cache_from", "cachefrom"})
"""Docker build options that steer Docker's cache or label the image; its contents stay the same."""

_NEEDS_GATHERING = (
    "required_integrations",
    "pyproject_path",
    "replicate_local_python_environment",
)

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
_APT_PACKAGE = re.compile(r"[a-z0-9][A-Za-z0-9+.:=~_*-]*")


def image_recipe(
    docker: Mapping[str, Any],
    *,
    python_version: str,
    engine_packages: tuple[str, ...],
    source_root: Path,
    local: bool,
    image: ImageSetting | Mapping[str, Any] | None = None,
) -> tuple[ImageRecipe, list[str]]:
    """The recipe of one sandbox's image.

    Args:
        docker: The fields of `DockerSettings` that were set, as plain values; for a step in
            `per_step` mode the pipeline's and the step's merged. What ZenML gathered for them
            (`modalrun.zenml_api.compiling.requirements.gather`) stands under the key `GATHERED`.
        python_version: Major and minor version, "3.11".
        engine_packages: What modalrun itself needs in the image ("zenml==0.98.0", ...).
        source_root: What relative paths in the settings are relative to.
        local: Whether the run goes to the local Modal server, which builds no image.
        image: The setting `image`; None for an image made from the Docker settings.

    Returns:
        The recipe, and what is worth saying about it.

    Raises:
        UsageError: Settings can't be translated (on Modal), a file that they name is missing, or
            they contradict one another. All problems are in the one message.
    """
    setting = ImageSetting.model_validate(image) if isinstance(image, Mapping) else image
    return _Translation(docker, source_root, local).recipe(setting, python_version, engine_packages)


def merged_docker(pipeline: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
    """The Docker settings of a step that has some of its own, over those of its pipeline.

    Field by field, dictionaries key by key and lists as a whole, as ZenML merges settings
    (`zenml/utils/pydantic_utils.py`, `update_model`, 0.98.0). What was gathered for the step
    already takes the pipeline's settings into account.
    """
    merged = dict(pipeline)
    for name, value in step.items():
        below = merged.get(name)
        both = isinstance(value, Mapping) and isinstance(below, Mapping) and name != GATHERED
        merged[name] = merged_docker(below, value) if both else value  # type: ignore[arg-type]
    return merged


def dockerignore(docker: Mapping[str, Any]) -> str | None:
    """The .dockerignore file that the settings name for the source tree; None for the usual one."""
    name = (docker.get("build_config") or {}).get("dockerignore") or docker.get("dockerignore")
    return None if name is None else str(name)


class _Translation:
    """One translation: collects what is worth saying and what is wrong, then gives the recipe."""

    def __init__(self, docker: Mapping[str, Any], source_root: Path, local: bool) -> None:
        self._docker = docker
        self._root = source_root
        self._local = local
        self._notes: list[str] = []
        self._problems: list[str] = []

    def recipe(
        self, image: ImageSetting | None, python_version: str, engine: tuple[str, ...]
    ) -> tuple[ImageRecipe, list[str]]:
        """See `image_recipe`."""
        if self._local and any(self._docker.get(key) for key in self._docker if key != GATHERED):
            self._notes.append(
                "Docker settings are recorded, not built: the local Modal server runs this Python"
            )
        if image is not None and image.name is not None:
            recipe = self._named(image.name)
        elif image is not None and not self._docker.get("skip_build"):
            recipe = self._built_by_zenml(python_version)
        elif self._docker.get("skip_build"):
            recipe = self._as_it_is()
        else:
            recipe = self._from_settings(python_version, engine)
        if self._problems:
            raise UsageError(_together(self._problems), hint=_HINT)
        return recipe, self._notes

    def _refuse(self, problem: str) -> None:
        """Something that Modal can't do. Locally nothing is built, so there it is only said."""
        if self._local:
            self._notes.append(f"on Modal this would be refused: {problem}")
        else:
            self._problems.append(problem)

    def _written(self, *, but: Iterable[str] = ()) -> list[str]:
        """The settings that say something, sorted."""
        skipped = {GATHERED, "skip_build", *but}
        return sorted(k for k, v in self._docker.items() if v and k not in skipped | _ON_BY_DEFAULT)

    def _named(self, name: str) -> ImageRecipe:
        if written := self._written():
            self._notes.append(
                f"the Docker settings {', '.join(written)} have no effect: 'image: name:' uses the"
                f" image {name} as it is"
            )
        return ImageRecipe(Named(name))

    def _built_by_zenml(self, python_version: str) -> ImageRecipe:
        if self._local:
            self._notes.append(
                "'image: source: registry' has no effect locally: nothing is built or pulled"
            )
            return ImageRecipe(Slim(python_version))
        return ImageRecipe(BuiltByZenML())

    def _as_it_is(self) -> ImageRecipe:
        parent = self._docker.get("parent_image")
        if not parent:
            raise UsageError(
                "'skip_build' needs a 'parent_image': with it the parent image is used as it is.",
                hint="Name the image, or remove 'skip_build'.",
            )
        if written := self._written(but={"parent_image"}):
            self._notes.append(
                f"the Docker settings {', '.join(written)} have no effect: 'skip_build' uses"
                f" {parent} as it is"
            )
        return ImageRecipe(FromRegistry(str(parent)))

    def _from_settings(self, python_version: str, engine: tuple[str, ...]) -> ImageRecipe:
        self._check_fields()
        force = bool(self._docker.get("prevent_build_reuse"))
        base, forced = self._base(python_version)
        force |= forced | self._main_build()
        return ImageRecipe(
            base=base,
            environment=self._variables("environment"),
            apt_packages=self._apt_packages(),
            packages=self._packages(engine),
            installer="pip" if self._docker.get("python_package_installer") == "pip" else "uv",
            installer_args=self._installer_args(),
            project_install=self._docker.get("local_project_install_command") or None,
            user=self._user(),
            runtime_environment=self._variables("runtime_environment"),
            force_build=force,
        )

    def _check_fields(self) -> None:
        for name, value in sorted(self._docker.items()):
            says_something = value is False if name in _ON_BY_DEFAULT else bool(value)
            if not says_something or name in _TRANSLATED:
                continue
            if name in _NO_EFFECT or name in _ON_BY_DEFAULT:
                why = _NO_EFFECT.get(name, "the source tree is mounted into the sandbox")
                self._notes.append(f"the Docker setting {name} has no effect: {why}")
            else:
                why = _REFUSED.get(name, "this version of modalrun doesn't know it")
                self._refuse(f"'{name}': {why}")
        mount = self._docker.get("python_package_installer_cache_mount")
        if mount and "type=cache" in mount.replace(" ", "").split(","):
            self._notes.append(
                "the Docker setting python_package_installer_cache_mount has no effect: Modal keeps"
                " finished layers instead"
            )
        elif mount:
            self._refuse(
                f"'python_package_installer_cache_mount: {mount}': Modal's builder takes no mounts;"
                " use a 'dockerfile', or 'image: source: registry'"
            )

    def _base(self, python_version: str) -> tuple[Base, bool]:
        """What the layers stand on, and whether it is to be built anew."""
        parent, dockerfile = self._docker.get("parent_image"), self._docker.get("dockerfile")
        if not dockerfile:
            for name in ("build_context_root", "parent_image_build_config"):
                if self._docker.get(name):
                    self._notes.append(
                        f"the Docker setting {name} has no effect without 'dockerfile'"
                    )
            return (FromRegistry(str(parent)) if parent else Slim(python_version)), False
        if parent:
            self._notes.append(
                "the Docker setting parent_image has no effect: 'dockerfile' has its own FROM"
            )
        if self._local and not self._path(str(dockerfile)).is_file():
            self._notes.append(f"there is no Dockerfile {self._path(str(dockerfile))}")
            return Slim(python_version), False
        return self._from_dockerfile(str(dockerfile))

    def _from_dockerfile(self, name: str) -> tuple[Base, bool]:
        path = self._path(name)
        text = docker_files.read(path, "Dockerfile", "dockerfile")
        config = self._docker.get("parent_image_build_config") or {}
        build_args, force = self._options(
            "parent_image_build_config", config.get("build_options") or {}
        )
        root = self._docker.get("build_context_root")
        context = self._path(str(root)) if root else None
        if context is not None and not context.is_dir():
            raise UsageError(f"'build_context_root' of the Docker settings: no folder {context}.")
        for line in docker_files.copies(text):
            if context is None:
                self._refuse(
                    f"'dockerfile': {path.name} has '{line}', but 'build_context_root' is not set"
                    " and so there is nothing to copy from; set it to a folder"
                )
            elif line.upper().startswith("ADD"):
                self._refuse(
                    f"'dockerfile': {path.name} has '{line}': Modal copies files of the build"
                    " context with COPY only; write COPY"
                )
            elif "$" in line.rpartition(" ")[0]:
                self._refuse(
                    f"'dockerfile': {path.name} has '{line}': Modal takes no variables in what is"
                    " copied; write the path out"
                )
        ignore = config.get("dockerignore")
        base = FromDockerfile(path, context, self._path(ignore) if ignore else None, build_args)
        return base, force

    def _main_build(self) -> bool:
        """Whether `build_config` asks to build anew."""
        config = self._docker.get("build_config") or {}
        build_args, force = self._options("build_config", config.get("build_options") or {})
        if build_args:
            names = ", ".join(name for name, _ in build_args)
            self._refuse(
                f"'build_config.build_options.build_args' ({names}): only a Dockerfile of your own"
                " reads build arguments; write them under 'environment', or for a 'dockerfile'"
                " under 'parent_image_build_config'"
            )
        return force

    def _options(self, section: str, options: Mapping[str, Any]) -> tuple[Pairs, bool]:
        """Build arguments and `no_cache` of Docker build options; the rest is said or refused."""
        build_args: dict[str, Any] = {}
        force = False
        for name, value in sorted(options.items()):
            if name in {"build_args", "buildargs"}:
                build_args.update(value or {})
            elif name in {"no_cache", "nocache"}:
                force |= bool(value)
            elif value in (None, False) or (name, value) == ("platform", "linux/amd64"):
                continue
            elif name in _HARMLESS_OPTIONS:
                self._notes.append(
                    f"the Docker setting {section}.build_options.{name} has no effect on Modal"
                )
            else:
                self._refuse(
                    f"'{section}.build_options.{name}': Modal's builder has no such option; remove"
                    " it, or let Docker build: 'image: {source: registry}'"
                )
        return tuple(sorted((k, str(v)) for k, v in build_args.items())), force

    def _variables(self, name: str) -> Pairs:
        # Upper case as in `_generate_zenml_pipeline_dockerfile` (ZenML 0.98.0).
        values = {str(k).upper(): str(v) for k, v in (self._docker.get(name) or {}).items()}
        for variable, value in values.items():
            if not _VARIABLE.fullmatch(variable):
                self._refuse(f"'{name}': '{variable}' is not the name of an environment variable")
            elif "\n" in value:
                self._refuse(
                    f"'{name}': the value of {variable} has several lines, which an image's"
                    " environment can't hold; put it into a ZenML or Modal secret"
                )
        return tuple(sorted(values.items()))

    def _apt_packages(self) -> tuple[str, ...]:
        gathered = (self._docker.get(GATHERED) or {}).get("apt") or ()
        names = dict.fromkeys([*(self._docker.get("apt_packages") or ()), *gathered])
        for name in names:
            if not _APT_PACKAGE.fullmatch(name):
                self._refuse(f"'apt_packages': '{name}' is not the name of a Debian package")
        return tuple(names)

    def _packages(self, engine: tuple[str, ...]) -> tuple[Packages, ...]:
        groups = [Packages("modalrun's engine", engine)]
        for origin, lines in self._requirements():
            kept = tuple(self._kept(origin, lines, engine))
            if kept:
                hashes = requirement_lines.has_hashes(kept)
                # An installer that sees one hash wants one for every line.
                groups.append(Packages(origin, kept, () if hashes else engine))
        return tuple(groups)

    def _requirements(self) -> list[tuple[str, tuple[str, ...]]]:
        gathered = self._docker.get(GATHERED)
        if gathered is not None:
            return [(group["origin"], tuple(group["lines"])) for group in gathered["packages"]]
        for name in _NEEDS_GATHERING:
            if self._docker.get(name):
                self._refuse(
                    f"'{name}': this deployment was compiled without gathering what it stands for;"
                    " compile the pipeline again"
                )
        value = self._docker.get("requirements")
        if not value:
            return []
        if isinstance(value, list):
            return [("requirements", tuple(str(line) for line in value))]
        return [
            (f"requirements in {value}", docker_files.read_requirements(self._path(str(value))))
        ]

    def _kept(self, origin: str, lines: tuple[str, ...], engine: tuple[str, ...]) -> Iterable[str]:
        """The lines of a group that an image can install."""
        contrary = dict(requirement_lines.contradictions(lines, engine))
        for line in lines:
            path = requirement_lines.local_path(line)
            if requirement_lines.project(line) == "modalrun" or _is_modalrun_checkout(line):
                # Its source is mounted: the one in use here, which needn't be released.
                continue
            if path is not None:
                self._refuse(
                    f"{origin}: '{line}' installs from a folder of this machine; put the project"
                    " into the source root and set 'local_project_install_command'"
                )
            elif line in contrary and origin.startswith(("the stack", "required_integrations")):
                self._notes.append(
                    f"{origin}: '{line}' is left out, {contrary[line]} runs modalrun"
                )
            elif line in contrary:
                self._refuse(
                    f"{origin}: '{line}' excludes {contrary[line]}, which is in use here and which"
                    " the sandbox needs; change the requirement, or install another version here"
                )
            else:
                yield line

    def _installer_args(self) -> tuple[str, ...]:
        given = self._docker.get("python_package_installer_args") or {}
        return tuple(f"--{k}" if v is None else f"--{k}={v}" for k, v in given.items())

    def _user(self) -> str | None:
        user = self._docker.get("user")
        if user and not _USER.fullmatch(str(user)):
            self._refuse(f"'user': '{user}' is not a user name or id, with or without ':group'")
        return str(user) if user else None

    def _path(self, name: str) -> Path:
        return docker_files.resolve(name, self._root)


def _is_modalrun_checkout(line: str) -> bool:
    return line.startswith(("-e ", "--editable")) and line.endswith("egg=modalrun")


_HINT = (
    "'DockerSettings(skip_build=True, parent_image=...)' uses an image as it is, and 'image:"
    " {source: registry}' one that ZenML builds with Docker."
)


def _together(problems: list[str]) -> str:
    if len(problems) == 1:
        return f"The Docker setting {problems[0]}."
    listed = "".join(f"\n  - {problem}" for problem in problems)
    return f"These Docker settings can't be turned into a Modal image:{listed}"
