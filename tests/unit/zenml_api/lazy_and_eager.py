"""Print the materializers of some values as JSON, with ZenML's activation or with ours.

Run as a script, since activation is for the whole process: `python lazy_and_eager.py lazy|eager`.
"""

import dataclasses
import json
import sys
from typing import Any


@dataclasses.dataclass
class Measurement:
    value: float


class Child(dict[str, int]):
    """A user's class below a builtin one."""


def values() -> dict[str, Any]:
    import numpy
    import pydantic
    import scipy.sparse
    from sklearn.linear_model import LogisticRegression

    class Model(pydantic.BaseModel):
        x: int = 1

    class Own(LogisticRegression):
        """A user's class below one of a package."""

    return {
        "ndarray": numpy.zeros(3),
        "numpy scalar": numpy.float64(1),
        "sparse matrix": scipy.sparse.csr_matrix([[1]]),
        "sklearn model": LogisticRegression(),
        "user's sklearn model": Own(),
        "user's dataclass": Measurement(1.0),
        "user's dict": Child(),
        "pydantic model": Model(),
        "list of ndarray": [numpy.zeros(3)],
        "list": [1, 2],
        "str": "text",
        "dict": {"a": 1},
        "bytes": b"x",
        "none": None,
        "type": int,
        "function": values,
    }


def main() -> None:
    from zenml.materializers.materializer_registry import materializer_registry

    if sys.argv[1] == "lazy":
        from modalrun.zenml_api.lazy_integrations import activate_lazily

        activate_lazily()
        activate_lazily()
        early = "sklearn" in sys.modules or "scipy" in sys.modules
    else:
        from zenml.integrations.registry import integration_registry

        integration_registry.activate_integrations()
        early = False
    found = {}
    for name, value in values().items():
        materializer = materializer_registry[type(value)]
        found[name] = f"{materializer.__module__}.{materializer.__qualname__}"
    registered = [
        f"{type_.__module__}.{type_.__qualname__}"
        for type_ in materializer_registry.materializer_types
    ]
    print(json.dumps({"found": found, "early": early, "registered": sorted(registered)}))


if __name__ == "__main__":
    main()
