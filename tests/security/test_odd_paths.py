"""No path that a spec, a deployment file, an option or the environment names ends with 70."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from modalrun.errors import UsageError
from modalrun.localmodal import launcher
from modalrun.spec.run_spec import load_spec
from modalrun.submit.prepare import with_file_values
from tests.security.test_deployment_source_root import Bench, bench

__all__ = ["bench"]

ODD = ["a\0b", "x" * 5_000, "x/" * 2_500, "é" * 200]
NO_USER = ["~nouser/x", "~\x01/.."]
DOCKER = ["requirements", "dockerfile", "dockerignore"]


@pytest.mark.parametrize("named", ODD, ids=lambda text: text[:3])
def test_a_deployment_file(bench: Bench, named: str) -> None:
    bench.write(named)
    with pytest.raises(UsageError, match="a path"):
        bench.plan()
    with pytest.raises(UsageError, match="a path"):
        with_file_values(load_spec(bench.file))
    settings: list[dict[str, Any]] = [{name: named} for name in DOCKER]
    settings += [{"build_config": {"dockerignore": named}}]
    for docker in settings:
        bench.write(docker=docker)
        with pytest.raises(UsageError, match="a path"):
            bench.plan()
    bench.write(source_include=[named])
    with pytest.raises(UsageError, match="a path"):
        bench.plan()


def quoted(named: str) -> str:
    return '"' + named.replace("\0", "\\0").replace("\x01", "\\x01") + '"'


@pytest.mark.parametrize("named", ODD + NO_USER, ids=lambda text: text[:3])
def test_a_run_spec(bench: Bench, named: str) -> None:
    spec = bench.folder / "run.yaml"
    for line in (
        f"pipeline: a.b\nsource_root: {quoted(named)}",
        f"deployment: {quoted(f'{named}.json')}",
    ):
        spec.write_text(line)
        with pytest.raises(UsageError, match=r"a path|home folder"):
            with_file_values(load_spec(spec))
    names = DOCKER[:2] if named in NO_USER else DOCKER
    lines = [f"settings: {{docker: {{{name}: {quoted(named)}}}}}\n" for name in names]
    for line in lines if named in NO_USER else [*lines, f"source_include: [{quoted(named)}]\n"]:
        with pytest.raises(UsageError, match=r"a path|home folder"):
            bench.plan(line)


@pytest.mark.parametrize("named", ODD, ids=lambda text: text[:3])
def test_an_included_requirements_file(bench: Bench, named: str) -> None:
    (bench.folder / "code" / "requirements.txt").write_text(f"-r {named}\n")
    with pytest.raises(UsageError, match="a path"):
        bench.plan("settings: {docker: {requirements: requirements.txt}}\n")


@pytest.mark.parametrize("named", [*NO_USER, *ODD[1:]], ids=lambda text: text[:3])
def test_the_state_folder(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for use in (launcher.status, launcher.stop, launcher.ensure_running):
        with pytest.raises(UsageError, match="--state-dir"):
            use(Path(named))
    monkeypatch.setenv("MODALRUN_LOCAL_STATE", named)
    with pytest.raises(UsageError, match="MODALRUN_LOCAL_STATE"):
        launcher.status()


@pytest.mark.parametrize("named", ODD[1:], ids=lambda text: text[:3])
@pytest.mark.parametrize("suffix", ["", ".json", ".py"])
def test_the_spec_itself(named: str, suffix: str) -> None:
    with pytest.raises(UsageError, match="a path"):
        load_spec(Path(f"{named}{suffix}"))


@pytest.mark.parametrize("name", ["spec", "spec.json"])
def test_a_named_pipe_as_a_spec(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match="no regular file"):
        with_file_values(load_spec(tmp_path / name))
