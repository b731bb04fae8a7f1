"""What runs inside a sandbox on Modal needs no package but those that its image has."""

from __future__ import annotations

import json
import re
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from modalrun.submit.runtime_packages import ENGINE

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.e2e

IMPORT_ALL = """
import importlib, json, pkgutil, sys

class Missing:
    names = frozenset(json.loads(MISSING))

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import modalrun.driver, modalrun.modal_api.step_sandboxes
import modalrun.modal_api.trial, modalrun.zenml_api.health
import modalrun.zenml_api.execution, modalrun.zenml_api.records
for package in (modalrun.driver, modalrun.zenml_api.execution, modalrun.zenml_api.records):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
result = None
"""


def test_what_runs_in_a_sandbox_imports_only_what_its_image_has(world: World) -> None:
    """An image that ZenML builds for a server has no SQLAlchemy, and none has Typer."""
    distributions = metadata.packages_distributions()
    installed = set().union(*map(needed, ENGINE))
    missing = [
        module
        for module, owners in distributions.items()
        if module != "modalrun" and installed.isdisjoint(map(normal, owners))
    ]
    assert {"sqlalchemy", "typer", "pytest"} <= set(missing)
    assert not {"zenml", "modal", "requests", "pydantic"} & set(missing)
    world.zenml(IMPORT_ALL.replace("MISSING", repr(json.dumps(missing))))


def needed(name: str, found: set[str] | None = None) -> set[str]:
    """The distributions that are installed with one, without its extras."""
    found = set() if found is None else found
    name = normal(name)
    if name not in found:
        found.add(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name, found)
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
