"""Translate the Docker settings that become layers on a base image. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modalrun.plan import requirements
from modalrun.plan.image_recipe import ImageRecipe, Packages, Pairs, Slim
from modalrun.util.modal_catalog import VARIABLE

GATHERED = "gathered_requirements"
"""The key under which a deployment carries, next to the Docker settings, the packages that ZenML
gathered for them at compile time: {"packages": [{"origin": ..., "lines": [...]}], "apt": [...]}."""

_NEEDS_GATHERING = ("required_integrations", "pyproject_path", "replicate_local_python_environment")

_FROM_GIT = re.compile(r"\bgit\+[a-z]+:|\bgit\s*=\s*[\"']", re.IGNORECASE)
"""A requirement of Git's, in a requirements file or in a `pyproject.toml`."""
_APT_PACKAGE = re.compile(r"[a-z0-9][A-Za-z0-9+.:=~_*-]*")
_OWN_CHECKOUT = re.compile(r"(-e |--editable).*egg=modalrun")

GPU_FIGURES = Packages("modalrun's figures of the GPU", ("nvidia-ml-py",))
"""What reads how busy a GPU is; it needs nothing else."""


@dataclass
class Remarks:
    """Collect notes for the user, and problems that keep Modal from building an image.

    The `local` Modal server builds no image.
    """

    local: bool
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a note."""
        self.notes.append(text)

    def refuse(self, problem: str) -> None:
        """Add a problem; it is only a note for the local Modal server."""
        if self.local:
            self.note(f"on Modal this would be refused: {problem}")
        else:
            self.problems.append(problem)


def variables(docker: Mapping[str, Any], name: str, remarks: Remarks) -> Pairs:
    """Translate `environment` or `runtime_environment`.

    Names are upper case as in ZenML (`_generate_zenml_pipeline_dockerfile`, 0.98.0).
    """
    values = {str(key).upper(): str(value) for key, value in (docker.get(name) or {}).items()}
    for variable, value in values.items():
        if not re.fullmatch(VARIABLE, variable):
            remarks.refuse(f"'{name}': '{variable}' is not the name of an environment variable")
        elif "\n" in value:
            remarks.refuse(
                f"'{name}': the value of {variable} has several lines, which an image's"
                " environment can't hold; put it into a ZenML or Modal secret"
            )
    return tuple(sorted(values.items()))


def apt_packages(docker: Mapping[str, Any], remarks: Remarks) -> tuple[str, ...]:
    """Translate `apt_packages`, with those of the stack and of integrations."""
    gathered = (docker.get(GATHERED) or {}).get("apt") or ()
    names = dict.fromkeys([*(docker.get("apt_packages") or ()), *gathered])
    for name in names:
        if not _APT_PACKAGE.fullmatch(name):
            remarks.refuse(f"'apt_packages': '{name}' is not the name of a Debian package")
    return tuple(names)


def with_git(recipe: ImageRecipe, source_root: Path, remarks: Remarks) -> ImageRecipe:
    """Add git to a recipe that installs from Git repositories, where apt is known to work.

    The slim base has no git (Modal's `debian_slim` is Docker's python:slim, read 2026-11-27).
    """
    texts = {group.origin: "\n".join((*group.lines, *group.pins)) for group in recipe.packages}
    if recipe.project_install:
        project = source_root / "pyproject.toml"
        text = requirements.read_text(project, "file", "project") if project.is_file() else ""
        texts["local_project_install_command"] = f"{recipe.project_install}\n{text}"
    origins = ", ".join(origin for origin, text in texts.items() if _FROM_GIT.search(text))
    if not origins or any(re.split("[=:]", name)[0] == "git" for name in recipe.apt_packages):
        return recipe
    if isinstance(recipe.base, Slim) or recipe.apt_packages:
        remarks.note(f"git is added to the image: {origins} installs from Git")
        return replace(recipe, apt_packages=(*recipe.apt_packages, "git"))
    remarks.note(
        f"{origins} installs from Git, and git is not added to {recipe.base}: if it has none, name"
        " it in the Docker setting apt_packages"
    )
    return recipe


def python_packages(
    docker: Mapping[str, Any], engine: tuple[str, ...], source_root: Path, remarks: Remarks
) -> tuple[Packages, ...]:
    """Translate everything that names Python packages; modalrun's own needs come first."""
    groups = [engine_layer(engine)]
    for origin, lines in _requirements(docker, source_root, remarks):
        kept = tuple(_installable(origin, lines, engine, remarks))
        if kept:
            # An installer that sees one hash demands one for every line.
            pins = () if requirements.has_hashes(kept) else engine
            groups.append(Packages(origin, kept, pins))
    return tuple(groups)


def engine_layer(engine: tuple[str, ...]) -> Packages:
    """Return the layer with the packages that modalrun needs."""
    return Packages("modalrun's engine", engine)


def _requirements(
    docker: Mapping[str, Any], source_root: Path, remarks: Remarks
) -> list[tuple[str, tuple[str, ...]]]:
    gathered = docker.get(GATHERED)
    if gathered is not None:
        return [(group["origin"], tuple(group["lines"])) for group in gathered["packages"]]
    for name in _NEEDS_GATHERING:
        if docker.get(name):
            remarks.refuse(
                f"'{name}': this deployment was compiled without gathering its packages;"
                " compile the pipeline again"
            )
    value = docker.get("requirements")
    if not value:
        return []
    if isinstance(value, list):
        return [("requirements", tuple(str(line) for line in value))]
    path = requirements.resolve_path(str(value), source_root)
    return [(f"requirements in {value}", requirements.read_requirements(path))]


def _installable(
    origin: str, lines: tuple[str, ...], engine: tuple[str, ...], remarks: Remarks
) -> Iterator[str]:
    """Yield the lines of a group that an image can install."""
    excluded = requirements.contradictions(lines, engine)
    for line in lines:
        if requirements.project(line) == "modalrun" or _OWN_CHECKOUT.fullmatch(line):
            # Its source is mounted: the version that is used here may not be released.
            continue
        if requirements.local_path(line) is not None:
            remarks.refuse(
                f"{origin}: '{line}' installs from a folder of this machine; put the project"
                " into the source root and set 'local_project_install_command'"
            )
        elif line not in excluded:
            yield line
        elif origin.startswith(("the stack", "required_integrations")):
            remarks.note(f"{origin}: '{line}' is left out, {excluded[line]} runs modalrun")
        else:
            remarks.refuse(
                f"{origin}: '{line}' excludes {excluded[line]}, which is in use here and which"
                " the sandbox needs; change the requirement, or install another version here"
            )


def installer_args(docker: Mapping[str, Any]) -> tuple[str, ...]:
    """Translate `python_package_installer_args`."""
    given = docker.get("python_package_installer_args") or {}
    return tuple(f"--{k}" if v is None else f"--{k}={v}" for k, v in given.items())
