"""Examples and pages of the docs in the help of commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from modalrun import DOCS
from modalrun.cli import app
from modalrun.cli.examples import EXAMPLES

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_the_help_of_a_command_has_examples_and_a_page_of_the_docs(name: str) -> None:
    if name == "rerun" and not (ROOT / "modalrun/cli/rerun.py").exists():
        pytest.skip("there is no such command yet")
    done = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "110"})
    assert done.exit_code == 0, done.output
    page, *examples = EXAMPLES[name]
    for example in examples:
        assert f"  modalrun {example}\n" in done.output or f"  {example}\n" in done.output
    assert f"{DOCS}/{page}" in done.output
    file, _, anchor = page.partition("#")
    text = (ROOT / "docs" / file).read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in titles}
    assert not anchor or anchor in anchors, sorted(anchors)


@pytest.mark.parametrize(
    ("name", "example"),
    [(name, one) for name, (_, *many) in EXAMPLES.items() for one in many if "$(" not in one],
)
def test_an_example_is_a_command_that_exists(name: str, example: str) -> None:
    group = typer.main.get_command(app)
    words = shlex.split(example)
    if name == "rerun" and "rerun" not in group.commands:  # type: ignore[attr-defined]
        pytest.skip("there is no such command yet")
    command = group
    for word in name.split():
        assert words.pop(0) == word
        command = command.commands[word]  # type: ignore[attr-defined]
    command.make_context(name, words)


def test_compile_does_not_offer_to_compile_a_deployment_file() -> None:
    text = {}
    for name in ("compile", "plan"):
        done = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "110"})
        argument = done.output.partition("Arguments:")[2].partition("Options:")[0]
        text[name] = " ".join(argument.split())
    offered = ", or a deployment file from 'compile'."
    assert text["plan"].endswith(f"my_project.training:pipeline){offered}")
    assert text["compile"].endswith(
        "with one, or a pipeline (training.py:training, my_project.training:pipeline)."
    )


def test_no_summary_of_a_command_is_cut() -> None:
    for command in ([], ["local"]):
        done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})
        assert "..." not in done.output.partition("Commands:")[2]
