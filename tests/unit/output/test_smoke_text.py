"""A smoke test says what it can cost; its report has neither secrets nor the home folder."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modalrun.doctor.findings import Report
from modalrun.doctor.smoke import Smoke, ceiling
from modalrun.doctor.smoke_checks import finding
from modalrun.doctor.smoke_trials import TRIALS, with_gpu
from modalrun.output import doctor_text, smoke_text
from modalrun.plan.pricing import dollars
from modalrun.util.check import Finding

PAGES = ("README.md", "docs/first-cloud-run.md")


def test_the_estimate() -> None:
    def estimate(target: str, amount: Decimal | None) -> str:
        plan = SimpleNamespace(target=target)
        priced = SimpleNamespace(stack=SimpleNamespace(name="cloud"))
        planned: Any = SimpleNamespace(plan=plan, priced=priced, trials=TRIALS, ceiling=amount)
        return smoke_text.estimate(cast("Smoke", planned))

    assert "it costs nothing" in estimate("local", Decimal(1))
    assert "stack 'cloud'" in estimate("modal", Decimal(1))
    assert "up to $1.00" in estimate("modal", Decimal(1))
    assert "not known" in estimate("modal", None)


def test_the_pages_have_the_figures_of_the_code() -> None:
    alone, gpu = ceiling(TRIALS, ()), ceiling({**TRIALS, "gpu": with_gpu("T4")}, ())
    assert alone is not None and gpu is not None and gpu < Decimal("0.10"), "not a few cents"
    root = Path(__file__).parents[3]
    readme, page = ((root / name).read_text(encoding="utf-8") for name in PAGES)
    assert dollars(alone) in readme and dollars(alone) in page and dollars(gpu) in page
    assert ceiling({"gpu": with_gpu("NEW-1")}, ()) is None


REPORT = Report(
    "local",
    (
        finding("account", ("ok", "the local Modal server", None)),
        finding("user", ("differs", "id 1000", "modalrun needs no root.")),
        finding("artifact_store", ("broken", f"{Path.home()}/x at https://me:pw@host", "Look.")),
    ),
    1.23456,
    exit_code=1,
)


def test_the_report_as_json() -> None:
    text = smoke_text.as_json(REPORT)
    report = json.loads(text)
    assert (report["format"], report["version"]) == ("modalrun-smoke", 1)
    assert report["exit_code"] == 1
    assert [one["state"] for one in report["checks"]] == ["ok", "differs", "broken"]
    assert set(report["versions"]) == {"modalrun", "python", "modal", "zenml"}
    assert report["checks"][2]["message"] == "~/x at https://***@host"
    assert "pw" not in text and f'"{Path.home()}' not in text


def test_the_report_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    smoke_text.print_report(REPORT)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("ok       Modal account   the local")
    assert shown[1].startswith("differs  user")
    assert shown[2].strip() == "-> modalrun needs no root."
    assert shown[3].startswith("broken   artifact store")
    assert shown[-1] == "1 ok, 1 differs, 1 broken, in 1.2 s (target local)"


@pytest.mark.parametrize(
    ("target", "state", "named"),
    [("modal", "ok", True), ("modal", "problem", False), ("local", "ok", False)],
)
def test_doctor_names_smoke_next(
    target: Any, state: Any, named: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Finding("python", state, "3.11", exit_code=2 if state == "problem" else 0)
    doctor_text.print_report(Report(target, (found,), 1.0, found.exit_code))
    assert ("modalrun smoke" in capsys.readouterr().out) == named
