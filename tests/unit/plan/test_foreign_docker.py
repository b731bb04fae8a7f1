"""Docker settings that only their user may set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modalrun.errors import UsageError
from modalrun.plan.deployment import Deployment
from modalrun.plan.foreign_docker import check_foreign_docker
from modalrun.spec.overrides import set_option
from modalrun.spec.precedence import Origin, SettingsLayer


@pytest.mark.parametrize(
    "docker",
    [
        {"requirements": "requirements.txt"},
        {"build_config": {"dockerignore": "../ignore"}},
        {"pyproject_export_command": ["make", "export"]},
    ],
)
def test_the_option_that_the_hint_names_sets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker: dict[str, Any]
) -> None:
    # As after `modalrun init` in a `src` layout: ZenML looks in the working folder, too.
    (tmp_path / "requirements.txt").touch()
    root = tmp_path / "src"
    root.mkdir()
    monkeypatch.chdir(tmp_path)
    deployment = Deployment("training", (), docker=docker)
    with pytest.raises(UsageError, match="of the deployment") as caught:
        check_foreign_docker(deployment, root, {}, {})
    hint = str(caught.value.hint)
    assert "for 'rerun' too" in hint
    option = set_option(hint.partition("--set '")[2].partition("'")[0])
    assert option.path[:2] == ("settings", "docker")
    given = {Origin.COMMAND_LINE: SettingsLayer(docker={option.path[2]: docker[option.path[2]]})}
    check_foreign_docker(deployment, root, given, {})
