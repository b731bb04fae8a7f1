"""Lazy activation gives a pipeline the same materializers as ZenML's own."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, cast

import pytest

from modalrun.zenml_api.lazy_integrations import _LazyMaterializers


class Array:
    """A value whose class seems to be NumPy's."""


Array.__module__ = "numpy"


def test_a_thread_waits_for_what_another_one_activates() -> None:
    """Inline steps of a dynamic pipeline return values of one kind at the same time."""
    begun, go = threading.Event(), threading.Event()

    class Slow:
        REQUIREMENTS = ("numpy>=2",)
        check_installation = staticmethod(lambda: True)

        @staticmethod
        def activate() -> None:
            begun.set()
            assert go.wait(60)
            table[Array] = cast("Any", Slow)

    table = _LazyMaterializers({}, {"slow": cast("Any", Slow)})
    with ThreadPoolExecutor() as pool:
        first = pool.submit(table.get, Array)
        assert begun.wait(60)
        second = pool.submit(table.get, Array)
        # It would have an answer by now.
        wait([second], timeout=0.1)
        go.set()
        assert (first.result(60), second.result(60)) == (Slow, Slow)


SCRIPT = Path(__file__).with_name("lazy_and_eager.py")


def answer(how: str, config: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), how],
        env={
            **os.environ,
            "ZENML_CONFIG_PATH": str(config),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_LOGGING_VERBOSITY": "ERROR",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.exhaustive
def test_lazy_activation_is_as_good_as_zenmls_own(tmp_path: Path) -> None:
    # One test, for it takes two processes that import all that is installed.
    lazy, eager = (answer(how, tmp_path / how) for how in ("lazy", "eager"))
    found = eager["found"]
    for value, materializer in {
        "ndarray": "NumpyMaterializer",
        "sparse matrix": "SparseMaterializer",
        "sklearn model": "SklearnMaterializer",
        "user's dataclass": "DataclassMaterializer",
        "pydantic model": "PydanticMaterializer",
        "list of ndarray": "BuiltInContainerMaterializer",
    }.items():
        assert found[value].endswith(f".{materializer}"), "ZenML's own answer"
    assert lazy["found"] == found, "the same materializer for every value"
    assert lazy["early"] is False, "nothing is imported before it is needed"
    assert lazy["registered"] == eager["registered"], "and nothing is missing in a list of all"
