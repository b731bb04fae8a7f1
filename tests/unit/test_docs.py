"""The pages say what the code does: generated tables, commands, options, links, exit codes."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer
import yaml

from modalrun import errors
from modalrun.cli import app
from modalrun.util import check as findings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
_COMMAND = re.compile(r"(?<![\w/.=-])(?<!install )modalrun +([^|;&)`\n#>]+)")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]+))?\)")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_tables_are_what_the_code_says(generate: ModuleType) -> None:
    pages = generate.pages()
    assert {path.name for path in pages} == {"configuration.md", "troubleshooting.md"}
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, "run 'python docs/generate.py'"
    for part in generate.PARTS:
        assert any(f"<!-- generated: {part} -->" in text for text in pages.values()), part


def written(page: Path) -> Iterator[list[str]]:
    """The arguments of every command of modalrun's in a page's code, blocks and spans."""
    text = page.read_text(encoding="utf-8")
    code = [body for _, body in _BLOCK.findall(text)]
    code += re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text))
    for piece in code:
        for match in _COMMAND.finditer(piece):
            try:
                arguments = shlex.split(match[1])
            except ValueError:
                arguments = match[1].split()
            if arguments and re.match(r"-|[a-z]", arguments[0]):
                yield arguments


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    found = list(written(page))
    for arguments in found:
        command = typer.main.get_command(app)
        for argument in arguments:
            if argument in {"...", "[...]", "--", "[--"}:
                break
            options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
            if argument.startswith("-"):
                option = argument.partition("=")[0].strip("[]")
                assert option in options | {"-h", "--help"}, f"modalrun {' '.join(arguments)}"
            elif hasattr(command, "commands"):
                assert argument in command.commands, f"modalrun {' '.join(arguments)}"
                command = command.commands[argument]
    assert found or page.name in {"images.md", "versions.md", "performance.md", "SECURITY.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for name, anchor in _LINK.findall(text):
        target = (page.parent / name) if name else page
        assert target.is_file(), name
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}
            assert anchor in anchors, f"{name}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_shell_leaves_the_values_of_options_as_they_are(page: Path) -> None:
    # Zsh takes brackets for a pattern of files, and refuses one that matches none.
    values = re.findall(r"--(?:set|param) ([^`\n]*)", page.read_text(encoding="utf-8"))
    for value in values:
        assert value[:1] in "'\"" or not re.search(r"[\[\]{}*?#]", value), value


def test_no_command_of_a_ci_job_leaves_a_file_in_the_source_tree() -> None:
    # The run would get it, and a rerun elsewhere miss it.
    text = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    for language, body in _BLOCK.findall(text):
        assert language != "sh" or " > " not in body, body


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_in_the_pages_is_yaml(page: Path) -> None:
    for language, body in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "yaml":
            assert yaml.safe_load(body), body


def test_every_class_of_error_has_its_section() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.ModalrunError):
            assert f"\n### Exit code {value.exit_code}\n" in page, value
    for check in findings.LABELS:
        assert f"`{check}`" in page, check


def test_each_row_of_who_may_do_what_has_its_tests() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and "`test_" in line]
    named = set(re.findall(r"`(test_\w+\.py)`", "".join(rows)))
    assert named == {path.name for path in (ROOT / "tests" / "security").glob("test_*.py")}
    for row in rows:
        *_, kept_by, tests, _ = row.split("|")
        assert "`test_" in tests
        for module in re.findall(r"`([\w/]+\.py)`", kept_by):
            assert (ROOT / "modalrun" / module).is_file(), module
