"""The command line, as real processes where exit codes and imports count."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import after_its_reader_left

from modalrun import __main__, __version__, cli
from modalrun.errors import CapacityError, Interrupted, RunFailedError, UsageError
from modalrun.util import interrupts


def modalrun(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modalrun", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


@pytest.mark.parametrize("code", [129, 130, 143])
def test_output_that_nobody_reads_does_not_hold_up_an_end_by_a_signal(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    limits: list[float | None] = []
    monkeypatch.setattr(interrupts, "within", lambda seconds, _: limits.append(seconds))
    __main__._flush(0)
    __main__._flush(code)
    assert limits == [None, interrupts.OUTPUT_SECONDS]


def test_version() -> None:
    done = modalrun("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"modalrun {__version__}\n", "")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(option: str) -> None:
    done = modalrun(option)
    assert done.returncode == 0
    assert "Usage: modalrun [OPTIONS] COMMAND" in done.stdout
    assert "submit" in done.stdout
    assert "local" in done.stdout
    assert done.stderr == ""


def test_help_of_submit_tells_the_exit_codes() -> None:
    done = modalrun("submit", "--help")
    assert done.returncode == 0
    assert "--target" in done.stdout
    text = " ".join(done.stdout.split())
    for said in ("0 completed", "2 the command line", "9 outcome", "130 and 143 interrupted"):
        assert said in text
    # One list: that of the README has no other codes.
    readme = Path(__file__).parents[3].joinpath("README.md").read_text(encoding="utf-8")
    table = readme.partition("## Exit codes")[2].partition("\n\n[")[0]
    listed = text.partition("Exit codes:")[2].partition("Arguments:")[0]
    cells = re.findall(r"\| (\d[\d, ]*)(?= \|)", table)
    assert set(", ".join(cells).split(", ")) == set(re.findall(r"\d+", listed))


@pytest.mark.parametrize("arguments", [[], ["local"]])
def test_no_command_shows_the_help(arguments: list[str]) -> None:
    done = modalrun(*arguments)
    assert done.returncode == 2
    shown = done.stdout + done.stderr
    assert shown.startswith(" ".join(["Usage: modalrun", *arguments, "[OPTIONS] COMMAND"]))
    assert "error in modalrun" not in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sumbit"], "sumbit"),
        (["submit"], "Name a run spec"),
        (["submit", "a.yaml", "b.yaml"], "unexpected extra argument"),
        (["submit", "a.yaml", "--targt", "local"], "--targt"),
        (["submit", "a.yaml", "--target", "cloud"], "'cloud' is not one of 'modal', 'local'"),
        (["--nonsense"], "--nonsense"),
        (["local", "nonsense"], "nonsense"),
    ],
)
def test_wrong_command_line(arguments: list[str], words: str) -> None:
    done = modalrun(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_spec(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    done = modalrun("submit", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: There is no file {path}.\n  Check the path.\n"


@pytest.mark.parametrize(
    ("given", "right"),
    [("out/x.yaml", "out/x.json"), ("/tmp/x", "/tmp/x.json"), (".", "deployment.json")],
)
def test_a_deployment_file_of_another_name(tmp_path: Path, given: str, right: str) -> None:
    spec = tmp_path / "run.yaml"
    spec.write_text("pipeline: a.b\n")
    done = modalrun("compile", str(spec), "-o", given)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"As in '--output {right}'." in done.stderr


def test_an_error_of_a_submission_is_on_the_page_of_a_github_job(tmp_path: Path) -> None:
    page, spec = tmp_path / "page.md", tmp_path / "a_b.yaml"
    job = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(page)}

    done = modalrun("submit", str(spec), **job)

    assert (done.returncode, done.stdout) == (2, "")
    said = f"There is no file {spec}."
    assert done.stderr.splitlines() == [
        f"Error: {said}",
        "  Check the path.",
        f"::error title=modalrun::{said}%0ACheck the path.",
    ]
    shown = page.read_text()
    assert shown.startswith("### ❌ There is no file ")
    assert shown.endswith("/a\\_b.yaml.\n\nCheck the path.\n\n")

    assert "::error" in modalrun("resume", "--nonsense", **job).stderr
    assert "No such option" in page.read_text().replace("\\", "")

    page.write_text("")
    assert "::error" not in modalrun("plan", str(spec), **job).stderr
    assert page.read_text() == ""


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = modalrun("--debug", "submit", str(tmp_path / "absent.yaml"))
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert "modalrun/spec/yaml_source.py" in done.stderr
    assert "Error: There is no file" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["submit", "--help"], ["sumbit"]])
def test_help_imports_neither_sdk_nor_what_is_slow(arguments: list[str]) -> None:
    code = (
        "import json, sys\n"
        "from modalrun.cli import run\n"
        f"run({arguments!r})\n"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert not {"modal", "zenml", "grpclib", "sqlalchemy", "yaml", "rich"} & modules


def test_the_reader_of_a_pipe_leaves() -> None:
    code = (
        "import sys\n"
        "sys.stdin.readline()\n"
        "sys.argv = ['modalrun', '--help']\n"
        "from modalrun.__main__ import main\n"
        "main()\n"
    )
    done = after_its_reader_left(code)
    assert done.stderr == ""
    assert done.exit_code == 141


# What `run` makes of what a command raises. In this process, with `submit`'s first call replaced.


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Makes `modalrun submit` raise something; gives back its exit code."""
    before = signal.getsignal(signal.SIGTERM)

    def call(error: BaseException, *options: str) -> int:
        def load(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("modalrun.spec.run_spec.load_spec", load)
        return cli.run([*options, "submit", "any.yaml"])

    yield call
    signal.signal(signal.SIGTERM, before)


def test_an_error_of_ours(raising, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert raising(CapacityError("No room.", hint="Try later.")) == 5
    assert capsys.readouterr() == ("", "Error: No room.\n  Try later.\n")
    assert raising(RunFailedError("It failed.")) == 1
    assert capsys.readouterr() == ("", "Error: It failed.\n")


def test_only_a_command_that_creates_says_that_nothing_was_created(  # type: ignore[no-untyped-def]
    raising, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = UsageError("It is damaged.", effect="Nothing was created.", hint="Restore it.")
    assert raising(damaged) == 2
    assert capsys.readouterr().err == "Error: It is damaged. Nothing was created.\n  Restore it.\n"

    def refuse() -> None:
        raise damaged

    monkeypatch.setattr("modalrun.zenml_api.config_files.require_readable", refuse)
    # The argument of a command is no command.
    assert cli.run(["status", "submit"]) == 2
    assert capsys.readouterr().err.endswith("Error: It is damaged.\n  Restore it.\n")


def test_a_fault_of_ours(raising, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert raising(ZeroDivisionError("oops")) == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert "ZeroDivisionError: oops" in err
    assert "--debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (Interrupted(), 143)],
)
def test_interrupted(  # type: ignore[no-untyped-def]
    raising, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    assert raising(error) == code
    assert capsys.readouterr() == ("", "Interrupted; nothing was submitted.\n")


@pytest.mark.parametrize("options", [["--source", "stdin"], ["--output", "xml"]])
def test_a_wrong_choice(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["logs", "run", *options]) == 2
    told = capsys.readouterr().err
    assert f": '{options[1]}' is not one of " in told, told


EARLY = """
import signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "modalrun.cli":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
from modalrun.__main__ import main
main()
"""


def test_interrupted_before_there_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "Interrupted; nothing was begun.\n"


def test_sigterm_ends_a_command_with_143(raising) -> None:  # type: ignore[no-untyped-def]
    raising(KeyboardInterrupt())
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("options", "target"),
    [([], None), (["--target", "local"], "local"), (["--target", "modal"], "modal")],
)
def test_target_option(
    monkeypatch: pytest.MonkeyPatch, options: list[str], target: str | None
) -> None:
    seen: list[object] = []

    def load(path: Path, *, target: str | None, overrides: object) -> None:
        seen.extend([path, target, overrides])
        raise RunFailedError("enough")

    monkeypatch.setattr("modalrun.spec.run_spec.load_spec", load)
    before = signal.getsignal(signal.SIGTERM)
    try:
        cli.run(["submit", "some.yaml", *options])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [Path("some.yaml"), target, ()]


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/modalrun.sh"),
        ("zsh", ".zfunc/_modalrun"),
        ("fish", ".config/fish/completions/modalrun.fish"),
    ],
)
def test_completion_is_installed_for_the_shell_that_is_named(
    shell: str, file: str, tmp_path: Path
) -> None:
    done = modalrun("--install-completion", shell, HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{shell} completion installed in {tmp_path / file}")
    shown = modalrun(f"--show-completion={shell}").stdout
    assert (tmp_path / file).read_text().strip() == shown.strip()


def test_completion_for_another_shell() -> None:
    done = modalrun("--install-completion", "tcsh")
    assert done.returncode == 2
    assert "'tcsh' is none of the shells bash, zsh, fish." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "run", "command"),
    [
        (["--", "ls", "--", "-la"], None, ["ls", "--", "-la"]),
        (["latest", "--", "ls", "-la"], "latest", ["ls", "-la"]),
        (["latest", "ls"], "latest", ["ls"]),
        (["latest", "--step", "train", "--"], "latest", []),
        ([], None, []),
    ],
)
def test_what_follows_two_dashes_is_the_command_of_exec(
    arguments: list[str], run: str | None, command: list[str]
) -> None:
    commands: Any = typer.main.get_command(cli.app)
    context = commands.commands["exec"].make_context("exec", arguments)
    assert (context.params["run"], context.params["command"]) == (run, command)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["exec", "latest", "ls", "-la"], "stand after '--'"),
        (["status", "latest", "--debug"], "modalrun --debug status latest"),
        (["plan", "my dir/run.yaml", "--debug"], "modalrun --debug plan 'my dir/run.yaml'"),
    ],
)
def test_where_an_option_belongs(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    assert hint in capsys.readouterr().err
