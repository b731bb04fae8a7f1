"""Findings of `modalrun doctor`."""

from __future__ import annotations

import pytest

from modalrun.errors import AuthenticationError, ConnectionLostError, NotFoundError
from modalrun.util import check
from modalrun.util.check import LABELS, Finding
from modalrun.util.reachability import ASK_DOCTOR, CHECK_SERVER


@pytest.mark.parametrize(
    ("found", "supported", "state", "code"),
    [
        ("1.6.4", ">=1.6,<2", "ok", 0),
        ("1.7.0.dev3", ">=1.6,<2", "ok", 0),
        ("2.0.0", ">=1.6,<2", "problem", 2),
        ("1.5.5", ">=1.6,<2", "problem", 2),
        ("9.9", "", "ok", 0),
        (None, ">=1.6,<2", "problem", 2),
    ],
)
def test_version(found: str | None, supported: str, state: str, code: int) -> None:
    finding = check.version("modal", found, supported)
    assert (finding.state, finding.exit_code) == (state, code)
    assert (finding.hint is None) == (state == "ok")
    if state == "problem":
        assert (">=1.6,<2" in str(finding.hint)) == (found is not None)


def test_a_server_of_another_version_is_a_warning() -> None:
    assert check.server_version("https://z", "0.98.0", "0.98.0").state == "ok"
    other = check.server_version("https://z", "0.97.1", "0.98.0")
    assert other.state == "warning"
    assert "zenml==0.97.1" in str(other.hint)
    assert check.server_version("https://z", "0.97.1", "0.98.0", ">=0.95,<1").hint == other.hint


@pytest.mark.parametrize("server", ["0.94.6", "a build of our own"])
def test_the_version_of_an_unsupported_server_is_not_recommended(server: str) -> None:
    finding = check.server_version("https://z", server, "0.98.0", ">=0.95,<1")
    assert finding.state == "warning"
    assert ">=0.95,<1" in str(finding.hint)
    assert "pip install" not in str(finding.hint)


@pytest.mark.parametrize(
    ("ahead", "state", "code", "message"),
    [
        ({}, "skipped", 0, "no ZenML or Modal server"),
        ({"ZenML": 0.4, "Modal": -9.0}, "ok", 0, "ZenML and Modal"),
        ({"ZenML": 0.4, "Modal": -42.0}, "warning", 0, "42 s behind Modal"),
        ({"ZenML": 4000.0}, "problem", 3, "4000 s ahead of ZenML"),
    ],
)
def test_clock(ahead: dict[str, float], state: str, code: int, message: str) -> None:
    finding = check.clock(ahead)
    assert (finding.state, finding.exit_code) == (state, code)
    assert message in finding.message


def test_the_first_problem_in_order_gives_the_exit_code() -> None:
    late = Finding.of_error("stack", NotFoundError("no such stack"))
    early = Finding.of_error(
        "modal_account",
        AuthenticationError("no token.", effect="Nothing was created.", hint="modal setup"),
    )
    warning = Finding("python", "warning", "old")
    assert check.exit_code([late, warning, early]) == 3
    assert check.exit_code([late, warning]) == 4
    assert check.exit_code([warning]) == 0
    assert (early.message, early.hint) == ("no token.", "modal setup")
    assert [f.check for f in check.in_order([late, warning, early])] == [
        "python",
        "modal_account",
        "stack",
    ]


def test_doctor_does_not_send_to_doctor() -> None:
    gone = ConnectionLostError("The ZenML server can't be reached.", hint=ASK_DOCTOR)
    assert "doctor" in ASK_DOCTOR
    assert Finding.of_error("zenml_login", gone).hint == CHECK_SERVER


def test_an_unforeseen_error_is_a_problem() -> None:
    finding = Finding.of_error("artifact_store", OSError("disk\nand more"))
    assert (finding.state, finding.message, finding.exit_code) == ("problem", "OSError: disk", 1)
    assert set(finding.as_json()) == {"name", "state", "message", "hint", "exit_code"}
    assert finding.check in LABELS
