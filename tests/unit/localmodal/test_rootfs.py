"""The folder and the environment of a local sandbox."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modalrun.localmodal.sandbox import rootfs
from modalrun.localmodal.sandbox.recipe import Recipe


@pytest.mark.parametrize("isolated", [True, False])
def test_a_system_python_is_found_as_python(
    isolated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    python = tmp_path / "usr" / "bin" / "python3"
    python.touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "usr"))
    monkeypatch.setattr(sys, "executable", str(python))
    root = tmp_path / "sb-of-this-test" / "root"
    rootfs.build(root.parent, (), {}, "/", prefix=sys.prefix, isolated=isolated)
    env = rootfs.environment(root, Recipe(), {}, {}, isolated=isolated)
    folder = env["PATH"].split(":")[-1]
    assert folder == ("/run/bin" if isolated else f"{root}/run/bin")
    assert (root / "run" / "bin" / "python").readlink() == python
    rootfs.remove(root.parent)


def test_a_path_stays_in_the_sandbox() -> None:
    root = Path("/sandbox")
    for path in ("/app/../tmp", "tmp", "//tmp/./"):
        assert rootfs.inside(root, path) == root / "tmp"
    assert rootfs.inside(root, "/") == rootfs.inside(root, "/app/..") == root
    for path in ("/..", "/a/../../b", "../b"):
        with pytest.raises(ValueError, match="leaves the sandbox"):
            rootfs.inside(root, path)
