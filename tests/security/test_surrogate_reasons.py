"""A step whose exception has a text that no encoding takes: class and text are kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modalrun.run.reporting import error_line
from modalrun.zenml_api.execution.exception_text import require_text

if TYPE_CHECKING:
    from tests.world import World

SPEC = """
pipeline: surrogates.surrogates
target: local
settings:
  orchestrator: {{mode: {mode}}}
"""


class OwnText(Exception):
    """Its text does not come from its arguments."""

    def __str__(self) -> str:
        return "own \udcff"


class NoText(Exception):
    def __str__(self) -> str:
        raise ValueError


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad \udc80"), "bad \\udc80"),
        (KeyError("\ud800"), "'\\ud800'"),
        (raised(ValueError("good"), TypeError("\udc80")), "good"),
        (raised(ValueError("\udc80"), raised(TypeError("\udc80"))), "\\udc80"),
        (ValueError("fine ☃"), "fine ☃"),
        (ValueError(), ""),
    ],
)
def test_the_class_stays_and_the_text_can_be_recorded(error: BaseException, text: str) -> None:
    from zenml.utils.exception_utils import collect_exception_information

    require_text(error)
    info = collect_exception_information(error)
    assert str(error) == text
    assert info.model_dump_json().encode()
    assert info.source == f"builtins.{type(error).__name__}"
    assert error_line(error).encode()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no notes, no groups")
def test_notes_and_groups_too() -> None:
    from zenml.utils.exception_utils import collect_exception_information

    error = ExceptionGroup("several", [ValueError("\udc80")])  # noqa: F821 (since 3.11)
    error.add_note("\udc81")
    require_text(error)
    traceback = collect_exception_information(error).traceback
    assert "\\udc80" in traceback and "\\udc81" in traceback


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OwnText(), "OwnText: own \\udcff"),
        (NoText(), "NoText, whose text can't be made: ValueError"),
    ],
)
def test_another_exception_names_one_that_can_not_be_recorded(
    error: BaseException, text: str
) -> None:
    with pytest.raises(RuntimeError) as caught:
        require_text(error)
    assert str(caught.value) == text


@pytest.mark.e2e
@pytest.mark.parametrize(
    "mode", ["pipeline", pytest.param("per_step", marks=pytest.mark.exhaustive)]
)
def test_a_run_tells_the_users_own_class_and_text(world: World, tmp_path: Path, mode: str) -> None:
    page = tmp_path / "summary.md"
    done = world.submit(
        SPEC.format(mode=mode), GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(page)
    )
    assert done.exit_code == 1, done.stderr
    assert "broken: ValueError: no name \\udc80" in done.stderr
    assert "ValueError: no name" in page.read_text(encoding="utf-8")
    (step,) = world.only_run().steps
    assert "builtins.ValueError" in step.exception and "UnicodeEncodeError" not in step.exception
    status = world.modalrun("status", world.only_run().id).finish()
    assert "ValueError: no name \\udc80" in status.stdout
