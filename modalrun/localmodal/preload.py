"""Name the modules that the server imports before a sandbox starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preload:
    """A request to import modules beforehand.

    Attributes:
        modules: The modules, in order. `module:function` or `module:object.method` also calls the
            function. Modules that don't exist are skipped.
        programs: The packages and modules that `python -m` then starts warm.
        env: Environment variables for the imports, in addition to those of every sandbox.
        late: Variables that the imports read, but that the programs themselves apply later.
    """

    modules: tuple[str, ...]
    programs: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    late: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON, the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Preload:
        """Convert from JSON. Raises ValueError when something is missing or wrong."""
        try:
            lists = {
                key: tuple(str(item) for item in values[key])
                for key in ("modules", "programs", "late")
            }
            return cls(env={str(k): str(v) for k, v in values["env"].items()}, **lists)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a preload: {error!r}") from error
