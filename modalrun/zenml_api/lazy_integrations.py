"""ZenML's integrations, activated when they are needed instead of all at the start.

ZenML activates every installed integration before it compiles or runs anything, which imports
scikit-learn, SciPy, torch and the like: above a second for a pipeline that uses none of them.
What activation gives a pipeline is materializers for the types of those packages. Here an
integration is activated when the materializer of a type of its package is asked for; an object of
such a type can't exist before its package is imported, so the answer is the same.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import logging
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zenml.integrations.integration import Integration
from zenml.integrations.registry import integration_registry
from zenml.materializers.materializer_registry import materializer_registry

if TYPE_CHECKING:
    from zenml.materializers.base_materializer import BaseMaterializer

# Python 3.10's own knows only distributions with a `top_level.txt`: neither NumPy nor scikit-learn.
if sys.version_info >= (3, 11):
    from importlib.metadata import packages_distributions as _find_packages_distributions
else:
    from importlib_metadata import packages_distributions as _find_packages_distributions

logger = logging.getLogger(__name__)


class _LazyMaterializers(dict[type, "type[BaseMaterializer]"]):
    """ZenML's materializers by type; a missing type first activates the integrations behind it.

    It takes the place of `MaterializerRegistry.materializer_types`, a plain dict (ZenML 0.98.0).
    """

    def __init__(
        self,
        registered: dict[type, type[BaseMaterializer]],
        waiting: dict[str, type[Integration]],
    ) -> None:
        super().__init__(registered)
        self._waiting = waiting

    def get(self, key: type, default: Any = None) -> Any:
        """The materializer of a type, after activating the integrations of its package."""
        if not super().__contains__(key) and self._waiting:
            self._activate_for(key)
        return super().get(key, default)

    # These return views of the same dict; only the order of activation is added to them.
    def keys(self) -> Any:
        """All types that have a materializer, those of every installed integration included."""
        self._activate(list(self._waiting))
        return super().keys()

    def items(self) -> Any:
        """As `keys`."""
        self._activate(list(self._waiting))
        return super().items()

    def values(self) -> Any:
        """As `keys`."""
        self._activate(list(self._waiting))
        return super().values()

    def __iter__(self) -> Iterator[type]:
        self._activate(list(self._waiting))
        return super().__iter__()

    def _activate_for(self, type_: type) -> None:
        package = type_.__module__.partition(".")[0]
        if package in sys.stdlib_module_names or package in {"zenml", "pydantic"}:
            return
        distributions = {_normal(d) for d in packages_distributions().get(package, ())}
        if not distributions:
            # The user's own module: its base classes are asked for one by one.
            return
        matching = [
            name
            for name, integration in self._waiting.items()
            if distributions & {_normal(_name(r)) for r in integration.REQUIREMENTS}
        ]
        # A package that no integration names may still be one's dependency, as keras is.
        self._activate(matching or list(self._waiting))

    def _activate(self, names: list[str]) -> None:
        for name in names:
            _activate(name, self._waiting.pop(name))


@functools.cache
def packages_distributions() -> dict[str, list[str]]:
    """The distributions that each importable package comes from; a quarter of a second to find."""
    return dict(_find_packages_distributions())


def activate_lazily() -> None:
    """Do what `integration_registry.activate_integrations()` does, each part when it is needed.

    Integrations without materializers are activated at once: they register service connectors.
    """
    if isinstance(materializer_registry.materializer_types, _LazyMaterializers):
        return
    # ZenML asks for this table with every artifact it stores (`utils/source_utils.py:716`).
    importlib.metadata.packages_distributions = packages_distributions
    waiting: dict[str, type[Integration]] = {}
    for name, integration in integration_registry.integrations.items():
        if integration.activate.__func__ is Integration.activate.__func__:  # type: ignore[attr-defined]
            # It does nothing, so it needn't be known whether all that it needs is installed.
            continue
        if importlib.util.find_spec(f"{integration.__module__}.materializers"):
            waiting[name] = integration
        else:
            _activate(name, integration)
    materializer_registry.materializer_types = _LazyMaterializers(
        materializer_registry.materializer_types, waiting
    )


def _activate(name: str, integration: type[Integration]) -> None:
    if not integration.check_installation():
        return
    try:
        integration.activate()
    except Exception:
        # As ZenML does: a broken installation of one package must not stop the others.
        logger.exception("The integration %s could not be activated.", name)


def _name(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;@]", requirement.strip(), maxsplit=1)[0]


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
