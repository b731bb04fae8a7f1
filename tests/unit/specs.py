"""Helpers for tests of the run spec."""

from pathlib import Path

import pytest

from modalrun.errors import UsageError
from modalrun.spec.run_spec import load_spec

PIPELINE = "pipeline: project.training.pipeline\n"


def mistakes(tmp_path: Path, text: str) -> UsageError:
    """Return the error of a wrong spec, after the checks that hold for every such error."""
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_spec(path)
    error = caught.value
    assert error.exit_code == 2
    for line in error.message.split("\n"):
        assert line.startswith(str(path)), "each line begins with the file"
    assert "pydantic" not in error.message.lower()
    return error


def mistake(tmp_path: Path, text: str) -> UsageError:
    """Return the error of a spec with one mistake."""
    error = mistakes(tmp_path, text)
    assert "\n" not in error.message, "one mistake is one line"
    return error


def line_of(error: UsageError, tmp_path: Path) -> int:
    """Return the line of the file that an error names."""
    rest = error.message.removeprefix(f"{tmp_path / 'run.yaml'}:")
    return int(rest.partition(":")[0])
