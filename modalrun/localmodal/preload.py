"""What a client asks the server to have in memory before a sandbox starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preload:
    """What is to be imported beforehand, and for whom.

    Attributes:
        modules: What is imported, in this order; of `module:function` (or `module:object.method`)
            the function is called too.
            Modules that don't exist are passed over.
        programs: Packages and modules whose programs (`python -m`) are then started warm.
        env: Variables that are set for the imports, beside those that every sandbox has.
        late: Variables that the imports look at, but that the programs themselves apply later.
    """

    modules: tuple[str, ...]
    programs: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    late: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Preload:
        """The inverse of `to_json`. Raises ValueError when something is missing or wrong."""
        try:
            lists = {
                key: tuple(str(item) for item in values[key])
                for key in ("modules", "programs", "late")
            }
            return cls(env={str(k): str(v) for k, v in values["env"].items()}, **lists)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a preload: {error!r}") from error
