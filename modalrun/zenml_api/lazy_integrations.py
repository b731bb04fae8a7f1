"""Activate ZenML's integrations when they are needed, instead of all at the start.

ZenML activates every installed integration before it compiles or runs anything, which imports
scikit-learn, SciPy, torch and the like: above a second for a pipeline that uses none of them. A
pipeline needs the activation for the materializers of these packages' types. Here an integration is
activated when the materializer of a type of its package is looked up. An object of such a type
can't exist before its package is imported, so the result is the same.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import logging
import re
import sys
import threading
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
    """Map types to materializers; look-up of a missing type activates its integrations.

    It takes the place of `MaterializerRegistry.materializer_types`, a plain dict (ZenML 0.98.0).
    """

    def __init__(
        self, registered: dict[type, type[BaseMaterializer]], waiting: dict[str, type[Integration]]
    ) -> None:
        super().__init__(registered)
        self._waiting = waiting
        # Inline steps of a dynamic pipeline store their results in threads.
        self._lock = threading.RLock()

    def get(self, key: type, default: Any = None) -> Any:
        """Return the materializer of a type, after activating the integrations of its package."""
        with self._lock:
            if not super().__contains__(key) and self._waiting:
                self._activate_for(key)
            return super().get(key, default)

    # Who asks for all gets those of every installed integration.
    def keys(self) -> Any:
        return self._whole().keys()

    def items(self) -> Any:
        return self._whole().items()

    def values(self) -> Any:
        return self._whole().values()

    def __iter__(self) -> Any:
        return self._whole().__iter__()

    def _whole(self) -> Any:
        with self._lock:
            self._activate(list(self._waiting))
            return super()

    def _activate_for(self, type_: type) -> None:
        package = type_.__module__.partition(".")[0]
        if package in sys.stdlib_module_names or package in {"zenml", "pydantic"}:
            return
        distributions = {_normal(d) for d in packages_distributions().get(package, ())}
        if not distributions:
            # The user's own module: ZenML looks its base classes up one by one.
            return
        matching = [
            name
            for name, integration in self._waiting.items()
            if distributions & {_normal(r) for r in integration.REQUIREMENTS}
        ]
        # A package that no integration names may be a dependency of one, as keras is.
        self._activate(matching or list(self._waiting))

    def _activate(self, names: list[str]) -> None:
        for name in names:
            _activate(name, self._waiting.pop(name))


@functools.cache
def packages_distributions() -> dict[str, list[str]]:
    """Return the distributions of each importable package, found once: it takes 0.25 s."""
    return dict(_find_packages_distributions())


def activate_lazily() -> None:
    """Activate each integration when it is needed, not all at once as ZenML does.

    Integrations without materializers are activated at once: they register service connectors.
    """
    if isinstance(materializer_registry.materializer_types, _LazyMaterializers):
        return
    # ZenML computes this table for every artifact it stores (`utils/source_utils.py:716`).
    importlib.metadata.packages_distributions = packages_distributions
    waiting: dict[str, type[Integration]] = {}
    for name, integration in integration_registry.integrations.items():
        if integration.activate.__func__ is Integration.activate.__func__:  # type: ignore[attr-defined]
            # Its activation does nothing.
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
        # As in ZenML, a broken installation of one package must not stop the others.
        logger.exception("The integration %s could not be activated.", name)


def _normal(requirement: str) -> str:
    """Return the normalized name of the distribution that a requirement or a name means."""
    name = re.split(r"[\s\[<>=!~;@]", requirement.strip(), maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()
