"""Scripts as users of Modal's sandboxes write them run to their end against the local server."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import Sdk

SCRIPTS = Path(__file__).parent / "scripts"

EXPECTED = {
    "code_execution": """\
fine: 0 45
wrong: 1 ValueError
ends: 9
too long: -1
no network: 1 OSError
ended: 137
""",
    "interpreter": """\
42
NameError: name 'y' is not defined
äää
0
""",
    "pool": """\
0 [0, 1, 4, 9, 16, 25, 36, 49, 64]
[0, 0, 0]
""",
    "web_server": """\
<h1>from a sandbox</h1>
changed
""",
    "files": """\
0
result.bin 2304000 True
62bf4dac3142
['./build.py', './out', './out/result.bin']
['build.py', 'out']
SandboxFilesystemNotFoundError
""",
    "agent_backend": """\
'beta\\nalpha\\n' 0 False
'yes more\\n' 4 False
'to stderr\\n' 1 False
'1\\n2\\n3\\n4\\n5\\n6\\n7\\n8\\n9\\n10' 0 True
'' -1 False
b'omega\\n'
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
    "watched_build": """\
['built 1', 'built 2']
Create True
None
137
""",
    "remote_runtime": """\
{'stdout': '/repo\\n', 'code': 0}
{'stdout': '42\\n', 'code': 0}
{'stdout': '', 'code': 1}
{'error': 'wrong token'}
['handled POST', 'handled POST', 'handled POST', 'handled POST']
""",
    "named_jobs": """\
started / it runs already
['step 1', 'step 2'] None
listed: True
terminated with 137
logged: ['step 1', 'step 2']
the name is free
""",
    "volume_files": """\
first.count 3
second.count 2
['first', 'second']
['second', 'third']
""",
}


@pytest.mark.parametrize(
    "name",
    [
        name if name == "agent_backend" else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in EXPECTED
    ],
)
def test_a_script_runs_unchanged(sdk: Sdk, name: str) -> None:
    assert sdk.script((SCRIPTS / f"{name}.py").read_text(encoding="utf-8")) == EXPECTED[name]
