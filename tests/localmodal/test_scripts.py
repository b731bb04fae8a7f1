"""Scripts as users of Modal's sandboxes write them run to their end against the local server."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import Sdk

SCRIPTS = Path(__file__).parent / "scripts"

EXPECTED = {
    "interpreter": """\
42
NameError: name 'y' is not defined
äää
0
""",
    "web_server": """\
<h1>from a sandbox</h1>
changed
""",
    "queue_pool": """\
[(0, 0), (1, 1), (2, 4), (3, 9), (4, 16), (5, 25)]
ready: 3
left: 0
""",
    "shell_session": """\
('work\\n7', 0)
silent
ModuleNotFoundError: No module named 'code_under_test'
('42', 0)
3
['return 42']
""",
    "pool": """\
0 [0, 1, 4, 9, 16, 25, 36, 49, 64]
[0, 0, 0]
""",
    "named_jobs": """\
started / it runs already
['step 1', 'step 2'] None
listed: True
terminated with 137
logged: ['step 1', 'step 2']
the name is free
""",
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", EXPECTED)
def test_a_script_runs_unchanged(sdk: Sdk, name: str) -> None:
    assert sdk.script((SCRIPTS / f"{name}.py").read_text(encoding="utf-8")) == EXPECTED[name]
