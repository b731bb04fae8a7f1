"""Nothing that a shell is offered for completion can be more than a word to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from modalrun import cli
from modalrun.cli import completion as completing
from modalrun.zenml_api.records import completion
from modalrun.zenml_api.records.completion import RecentRun

ID = "95e54789-2cf3-4454-b6a5-ba596d19ba10"
ATTACKS = [
    r"x\$(touch owned)",  # zsh evaluates what Typer escapes once
    "x`touch owned`",
    "x';touch owned;'",
    'x"$(touch owned)"',
    "x\ny",  # one more offer for bash and fish
    "x\ty",  # a description for fish
    "x:::y",  # a description for PowerShell
    "--force",  # an option of `stop`
    "@args",  # PowerShell splats it
    "*",  # bash expands it
    "x [link=https://evil]y[/link]",
    "naïve",
    "x\u200b",
    "x\n",
    "",
]
SHELLS = ["bash", "zsh", "fish", "powershell"]


def offered(name: str, status: str = "running", typed: str = "") -> list[tuple[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(completion, "recent_runs", lambda: [RecentRun(ID, name, status, "p")])
        context = typer.Context(typer.main.get_command(cli.app), info_name="status")
        return completing.runs(context, typed)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_run_is_offered_by_its_id_where_its_name_is_no_word(name: str) -> None:
    assert [value for value, _ in offered(name)] == ["latest", ID]
    assert [value for value, _ in offered(name, typed=name) if name] in ([], ["latest", ID])


def test_an_ordinary_name_is_offered() -> None:
    name = "train-2026_11_28.a:b@c+d=e"
    assert offered(name) == [("latest", "the newest run"), (name, "running")]
    assert offered(name, typed="9") == [(ID, "train-2026_11_28.a_b_c_d_e, running")]


@given(name=st.text(), status=st.text(), typed=st.sampled_from(["", "9", "x", "$", "-"]))
def test_any_name_and_status(name: str, status: str, typed: str) -> None:
    for value, description in offered(name, status, typed):
        assert re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.:@+=,/-]*", value) and ":::" not in value
        assert re.fullmatch(r"[A-Za-z0-9 ,._-]*", description)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_shell_gets(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [RecentRun(ID, attack, attack, attack) for attack in ATTACKS]
    monkeypatch.setattr(completion, "recent_runs", lambda: runs)
    asked = {
        "_MODALRUN_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "modalrun status ",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": "modalrun status ",
        "COMP_CWORD": "2",
    }
    for name, value in asked.items():
        monkeypatch.setenv(name, value)

    cli.run([])

    text = capsys.readouterr().out
    assert ID in text
    assert "touch" not in re.sub(rf"{ID}\W.*", "", text)
    own = text.replace("_arguments '*: :((", "").replace("))'", "")
    assert not set(own) & set("$`\\;*@[]()")
    if shell != "zsh":
        assert not set(own) & set("\"'")


def completers(command: Any) -> Iterator[Any]:
    for child in getattr(command, "commands", {}).values():
        yield from completers(child)
    for parameter in command.params:
        own = getattr(parameter, "_custom_shell_complete", None)
        if own is not None:
            yield parameter.name


def test_what_is_known_here_is_offered_as_it_is() -> None:
    """Each completion goes through the check of what a shell may get."""
    names = {"run", "of", "begin", "step", "state", "pipeline", "gpu", "region", "cloud"}
    found = set(completers(typer.main.get_command(cli.app)))
    assert found == names | {"sandbox", "sandboxes"}
    sources = [path.read_text() for path in Path(cli.__file__).parent.rglob("*.py")]
    used = re.findall(r"(?:autocompletion|shell_complete)=([\w.]+)", "".join(sources))
    assert used and all(name.startswith("completion.") for name in used)
    checked = re.findall(r"@_offer\ndef (\w+)", Path(str(completing.__file__)).read_text())
    assert {name.removeprefix("completion.") for name in used} == set(checked)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_step_or_pipeline_is_not_offered_where_its_name_is_no_word(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "recent_runs", lambda: [RecentRun(ID, "a", "running", name)])
    monkeypatch.setattr(completion, "steps_of", lambda _, **__: [name])
    context = typer.Context(typer.main.get_command(cli.app))
    assert completing.steps(context, "") == completing.pipelines(context, "") == []
