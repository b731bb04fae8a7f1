"""Which commands of an image are not executed here."""

from __future__ import annotations

import pytest

from modalrun.util.dockerfile import not_executed


@pytest.mark.parametrize(
    ("run", "here", "own"),
    [
        ("make -C /src", False, False),
        ("apt-get update && apt-get install -y git", False, False),
        ("cd /src && pip install --no-cache-dir 'pytest>=1'", True, True),
        ("python -m pip install pytest PyYAML[extra]", True, True),
        ("/.uv/uv pip install --python $(command -v python) --compile-bytecode pytest", True, True),
        ("pip install 'pytest==0.1'", False, True),
        ("pip install pytest no-such-package", False, True),
        ("pip install 'no-such-package; python_version < \"3\"'", True, True),
        ("pip install -r requirements.txt", False, True),
        ("pip install git+https://example.com/pytest", False, True),
        ("pip install pytest@https://example.com/pytest.whl", False, True),
        ("pip install $PACKAGE", False, False),
        ("pip install pytest && make", False, False),
    ],
)
def test_commands_without_effect(run: str, here: bool, own: bool) -> None:
    runs = ["apt-get update", run]
    assert not_executed(runs, installs=False) == ([] if here else [run])
    assert not_executed(runs, installs=True) == ([] if own else [run])
