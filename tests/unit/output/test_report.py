"""The report of a run, as HTML."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import pytest

from modalrun.observe.cost import RunCost
from modalrun.output.report import MOST_CHARTS, MOST_FAILURES, render
from modalrun.run.artifacts import Artifact, Visualization
from modalrun.run.metadata import Announced, StepMetadata
from modalrun.run.records import StepRecord
from tests.unit import reports
from tests.unit.reports import HOSTILE, HOSTILE_PAGE, NOON, RUN_ID, mixed, report, step


def test_a_report_says_what_is_known_of_a_run() -> None:
    page = render(mixed())
    for text in (
        "failed",
        RUN_ID,
        "2 m 32 s",
        "about $0.1234",
        "c0ffee0000",
        "4 of 6 done",
        "ValueError: a text",
        "lib/0.py",
        "the last line of a text",
        f"modalrun logs {RUN_ID} --step publish",
        "train, completed: waiting",
        "failed 30 s",
        "retry (try 2)",
        "peak 2.1 of 4 cores",
        "peak 660 of 2,048 MiB",
        "busy 48 %",
        "peak 900 of 16,384 MiB",
        "pipeline: a text",
        "Plan of a text",
        "A note on a text",
        "data:image/png;base64,",
        "&#34;accuracy&#34;: 0.98",
    ):
        assert text in page, text


def test_nothing_of_a_run_becomes_markup() -> None:
    page = render(mixed(HOSTILE))
    assert "<script" not in page and "<img src=x" not in page and "</pre></script" not in page
    assert "javascript:" not in page
    # The user's page is one attribute of a frame that may do nothing.
    assert page.count("<iframe") == 1 and '<iframe sandbox="" ' in page
    assert HOSTILE_PAGE[:15] not in page.partition("<html")[2]
    assert "default-src 'none'" in page


def test_text_that_hides_text_is_cleaned() -> None:
    page = render(mixed("name\u202e\x1b[31mgnp.exe\u200b"))
    assert "namegnp.exe" in page and "\u202e" not in page and "\x1b" not in page


@pytest.mark.parametrize("count", [50, 300])
def test_a_large_run_has_a_page_of_a_size_that_can_be_sent(count: int) -> None:
    page = render(reports.large(count))
    assert len(page.encode()) < 1_000_000 * max(1, count / 100)
    assert page.count('<details class="step"') == count
    assert page.count('aria-label="Usage of') == min(count, MOST_CHARTS)
    assert f"{count - MOST_CHARTS} others are not shown" in page
    # A name has one anchor, which all links lead to.
    anchors = re.findall(r' id="(step-\d+)"', page)
    assert len(set(anchors)) == count
    assert set(re.findall(r'href="#(step-\d+)"', page)) == set(anchors)


def test_many_failures_are_not_all_told() -> None:
    page = render(
        report(*(step(f"s{n}", n, 1, status="failed") for n in range(50)), status="failed")
    )
    assert page.count('<article class="card failure"') == MOST_FAILURES
    assert "30 more steps have failed." in page


def test_a_run_that_goes_on_is_shown_as_it_is_now() -> None:
    running = step("train", 20, 9, status="running", end=None, upstream=("load",))
    waits = StepRecord("other", "not run", upstream=("load",))
    page = render(report(step("load", 5, 10), running, more=(waits,), status="running"))
    assert "so far" in page and "goes on" in page
    assert "other, waiting: waiting" in page
    assert "run 0.0 s" not in page


def test_a_run_that_never_started_has_a_report() -> None:
    page = render(
        report(status="failed", more=(StepRecord("load", "not run"),), started=False, text="x")
    )
    assert "It has not run here." in page and "load, not run" in page


def test_a_run_without_steps_has_a_report() -> None:
    page = render(report(status="stopped"))
    assert 'id="graph"' not in page and "0 of 0 done" in page


def test_a_result_of_an_earlier_run_has_no_bar() -> None:
    taken = step("load", -500, 10, status="skipped")
    page = render(report(taken, step("train", 5, 10, upstream=("load",))))
    assert 'aria-label="load, skipped">' in page


def test_artifacts_of_earlier_runs_come_last_and_folded() -> None:
    artifacts = tuple(
        Artifact(name, "o", f"of {name}", "1", "T", "u") for name in ("load", "train")
    )
    found = report(
        step("load", -500, 10, status="cached"), step("train", 5, 10), artifacts=artifacts
    )
    before, _, folded = render(found).partition("Taken from earlier runs (1)</summary>")
    assert "of train" in before and before.endswith('<details class="fold"><summary>')
    assert "Artifact of load" in folded and "Artifact of load" not in before


def test_visualizations_of_unknown_content_are_named() -> None:
    pictures = (Visualization("image", b"no image"), Visualization("json", "{"))
    page = render(
        report(
            step("load", 5, 10), artifacts=(Artifact("load", "o", "o", "1", "T", "u", pictures),)
        )
    )
    assert "An image of an unknown format." in page and "<img" not in page


@pytest.mark.parametrize(
    ("content", "kind"), [(b"\xff\xd8\xff\xe0\0\x10JFIF", "jpeg"), (b"<svg>", "svg+xml")]
)
def test_images_are_shown_by_what_they_begin_with(content: bytes, kind: str) -> None:
    made = Artifact("load", "o", "o", "1", "T", "u", (Visualization("image", content),))
    page = render(report(step("load", 5, 10), artifacts=(made,)))
    assert f'<img src="data:image/{kind};base64,' in page


@pytest.mark.parametrize(
    ("kind", "content"),
    [("csv", f"a,b\r{'x' * 140_000},c"), ("json", "[" * 20_000), ("json", f"[{'1' * 5_000}]")],
)
def test_a_visualization_that_is_not_what_it_claims_is_shown_as_text(
    kind: Literal["csv", "json"], content: str
) -> None:
    picture = Visualization(kind, content)
    made = Artifact("load", "o", "o", "1", "T", "u", (picture,))
    page = render(report(step("load", 5, 10), artifacts=(made,)))
    assert content.splitlines()[-1] in page


def test_a_rerun_is_called_one() -> None:
    page = render(replace(mixed(), related=(("rerun of", "the <first>", "1d1f"),)))
    assert 'rerun of <span class="mono">the &lt;first&gt;</span>' in page
    assert "rerun of" not in render(mixed())


def test_the_runs_of_child_pipelines_have_the_command_of_their_report() -> None:
    found = mixed()
    child = replace(found.view.run, id="1d1f", name="the <child>", status="completed")
    run = replace(found.view.run, children={"outer/inner": child})
    page = render(replace(found, view=replace(found.view, run=run)))
    row = page.partition('id="children"')[2].partition("</section>")[0]
    told = ("<td>outer/inner</td>", ">completed<", "the &lt;child&gt;", "modalrun report 1d1f")
    assert all(one in row for one in told), row
    assert '<a href="#children">Child pipelines</a>' in page
    assert "children" not in render(found)


def test_a_run_that_had_no_sandbox_has_cost_nothing() -> None:
    found = report(step("load", 5, 10, status="cached"))
    run = replace(found.view.run, metadata=None, announced=Announced("modal", "pipeline", "app"))
    page = render(replace(found, view=replace(found.view, run=run), cost=RunCost(None, {})))
    assert "it had no sandbox" in page
    assert "unknown" not in page


@pytest.mark.parametrize("target", ["modal", "local"])
def test_after_a_resume_it_says_that_only_a_part_is_counted(
    target: Literal["modal", "local"],
) -> None:
    found = mixed()
    run = found.view.run
    assert run.metadata is not None
    run = replace(run, metadata=replace(run.metadata, target=target))
    cost = replace(found.cost, resumed=True)
    page = render(replace(found, view=replace(found.view, run=run), cost=cost))
    assert "about $0.1234 without the run sandbox before the resume</dd>" in page


def test_a_step_without_a_sandbox_of_its_own_has_no_columns_for_one() -> None:
    assert '<th scope="col">sandbox</th>' in render(mixed())
    assert '<th scope="col">sandbox</th>' not in render(report(step("load", 5, 10, metadata=None)))


def test_how_long_a_warm_sandbox_was_idle_stands_beside_it() -> None:
    page = render(report(step("load", 5, 10, metadata=StepMetadata("sb-warm", idle=58.4))))
    assert "sb-warm (idle 58 s before)" in page


def test_a_step_took_as_long_as_its_status_says() -> None:
    found = report(step("load", 5, 10))
    # Its own process began later than its record, which the status shows.
    early = replace(found.view.steps[0], start=NOON + timedelta(seconds=6))
    lines = replace(found.timeline.steps[0], step=early)
    page = render(replace(found, timeline=replace(found.timeline, steps=(lines,))))
    assert '<span class="time">12 s</span>' in page


def test_only_pages_of_the_web_are_linked() -> None:
    found = report(step("load", 5, 10), url="https://zenml.example/projects/default/runs/1")
    assert 'href="https://zenml.example/projects/default/runs/1"' in render(found)
    wrong = replace(found.view.run, url="file:///etc/passwd")
    assert "file:///" not in render(replace(found, view=replace(found.view, run=wrong)))
