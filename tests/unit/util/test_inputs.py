"""What code reads while it is imported."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modalrun.util import inputs
from modalrun.util.inputs import Inputs, unchanged, watched

Importing = Callable[[str], Inputs]


@pytest.fixture
def importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Importing:
    """Import code as a module of the user's, whose file is not new."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(code: str) -> Inputs:
        name = f"user_code_{len(list(tmp_path.glob('user_code_*')))}"
        path = tmp_path / f"{name}.py"
        path.write_text(code, encoding="utf-8")
        for file in tmp_path.rglob("*"):
            if file.is_file():
                os.utime(file, (1e9, 1e9))
        importlib.invalidate_caches()
        found = Inputs()
        try:
            with watched(found):
                importlib.import_module(name)
        finally:
            sys.modules.pop(name, None)
        return found

    return run


def test_plain_code_depends_on_its_own_file(importing: Importing, tmp_path: Path) -> None:
    found = importing("import json, csv\nx = 1\n")
    assert found.doubts == []
    assert str(tmp_path / "user_code_0.py") in found.paths
    assert all(path.startswith(str(tmp_path)) for path in found.paths)
    assert unchanged(found.paths)
    (tmp_path / "user_code_0.py").write_text("x = 2\n")
    assert not unchanged(found.paths)


def test_bytecode_stands_for_its_source(importing: Importing, tmp_path: Path) -> None:
    importing("x = 1\n")
    found = Inputs()
    with watched(found):
        importlib.import_module("user_code_0")
    sys.modules.pop("user_code_0")
    assert str(tmp_path / "user_code_0.py") in found.paths
    assert not any(path.endswith(".pyc") for path in found.paths)


def test_a_file_that_code_reads(importing: Importing, tmp_path: Path) -> None:
    (tmp_path / "lr.txt").write_text("0.1")
    found = importing("x = open('lr.txt').read()\n")
    assert found.doubts == [] and unchanged(found.paths)
    (tmp_path / "lr.txt").write_text("0.2")
    assert not unchanged(found.paths)


def test_a_file_that_is_missing_and_then_there(importing: Importing, tmp_path: Path) -> None:
    found = importing("try:\n    open('local.env')\nexcept OSError:\n    pass\n")
    assert found.doubts == [] and unchanged(found.paths)
    (tmp_path / "local.env").write_text("")
    assert not unchanged(found.paths)


@pytest.mark.parametrize(
    "code",
    [
        "import os\nx = os.listdir('data')\n",
        "import glob\nx = glob.glob('data/*')\n",
        "from pathlib import Path\nx = sorted(Path('data').glob('*.csv'))\n",
        "from pathlib import Path\nx = list(Path('data').iterdir())\n",
        "import os\nx = list(os.walk('data'))\n",
    ],
)
def test_a_folder_that_code_lists(importing: Importing, tmp_path: Path, code: str) -> None:
    (tmp_path / "data").mkdir()
    found = importing(code)
    assert found.doubts == [] and unchanged(found.paths)
    (tmp_path / "data" / "new.csv").write_text("")
    assert not unchanged(found.paths)


def test_a_file_that_code_writes_does_not_count(importing: Importing) -> None:
    found = importing("with open('import.log', 'a') as f:\n    f.write('.')\n")
    assert found.doubts == []
    assert not any(path.endswith("import.log") for path in found.paths)


def test_a_file_that_has_just_changed_may_not_be_what_was_read(
    importing: Importing, tmp_path: Path
) -> None:
    (tmp_path / "writer.py").write_text("")
    found = importing("open('lr.txt', 'w').close()\nx = open('lr.txt').read()\n")
    assert found.doubts == ["a file has just changed"]


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess\nsubprocess.run(['true'])\n",
        "import os\nos.system('true')\n",
        "import os\nif os.fork() == 0:\n    os._exit(0)\n",
        "import socket\ns = socket.create_connection(ADDRESS)\n",
        "import urllib.request\n"
        "try:\n    urllib.request.urlopen('http://%s:%d' % ADDRESS, timeout=0.1)\n"
        "except OSError:\n    pass\n",
        "import sqlite3\nsqlite3.connect(':memory:').close()\n",
        "import datetime\nx = datetime.datetime.now()\n",
        "from datetime import date\nx = date.today()\n",
        "import time\nx = time.time()\n",
        "from time import time\nx = time()\n",
        "import random\nx = random.random()\n",
        "import uuid\nx = uuid.uuid4()\n",
        "import os\nx = os.path.exists('gpu')\n",
        "from pathlib import Path\nx = Path('gpu').is_file()\n",
        "import os\nx = os.stat('.').st_mtime\n",
        "def pipeline():\n    import random\n    return random.randint(1, 9)\n",
        "class C:\n    import time\n    x = time.time()\n",
    ],
)
def test_code_that_may_do_something_else_the_next_time(importing: Importing, code: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = importing(f"ADDRESS = {server.getsockname()[:2]!r}\n{code}")
    assert found.doubts != []


@pytest.mark.parametrize("decorator", ["step", "step(enable_cache=False)", "zenml.step"])
def test_a_step_may_ask_for_the_time(importing: Importing, decorator: str) -> None:
    found = importing(
        "import time, random, types\n"
        "def step(f=None, **options):\n    return f or step\n"
        "zenml = types.SimpleNamespace(step=step)\n"
        f"@{decorator}\n"
        "def train():\n    return time.time() + random.random()\n"
    )
    assert found.doubts == []


def test_what_other_threads_do_does_not_count(importing: Importing, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("")
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            (tmp_path / "other.txt").read_text()
            with socket.socket() as probe:
                probe.connect_ex(("127.0.0.1", 9))
            time.sleep(0)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        found = importing("import wave\n")
    finally:
        stop.set()
        thread.join()
    assert found.doubts == []
    assert not any(path.endswith("other.txt") for path in found.paths)


def test_too_many_files(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MOST_PATHS", 1)
    (tmp_path / "a.txt").write_text("")
    found = importing("open('a.txt')\n")
    assert len(found.doubts) == 1 and "more than 1 files" in found.doubts[0]


def test_too_much_data(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MOST_BYTES", 100)
    (tmp_path / "a.txt").write_text("x" * 101)
    found = importing("open('a.txt')\n")
    assert len(found.doubts) == 1 and "more than 100 bytes" in found.doubts[0]


def test_the_callers_own_folders_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    found = Inputs()
    with watched(found, [str(tmp_path)]):
        (tmp_path / "config.yaml").read_text()
    assert found.paths == {}
