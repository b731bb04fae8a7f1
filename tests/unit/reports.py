"""Build reports of made-up runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from modalrun.observe.cost import RunCost
from modalrun.observe.report import Report
from modalrun.run.artifacts import Artifact, Visualization
from modalrun.run.failure import Failure
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import Named, RunRecord, StepRecord
from modalrun.run.status import NOT_ASKED, Note, SandboxState, derive_status
from modalrun.run.timeline import timeline_of
from modalrun.run.usage import StepUsage, UsagePoint

NOON = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)
RUN_ID = "0d1f5b62-0000-4000-8000-000000000000"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d4944415478da63fccf50cf000004810180a5d2e8a40000000049454e44ae426082"
)
HOSTILE = "</pre></script><script>document.title='hacked'</script>\"'><img src=x onerror=alert(1)>"
PAGE = '<!doctype html><h1>A page of the user\'s</h1><p style="color: navy">with a style'
HOSTILE_PAGE = """<!doctype html><meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/moved">
<link rel="stylesheet" href="http://127.0.0.1:9/style.css"><img src="http://127.0.0.1:9/pixel.png">
<script>parent.document.title = 'hacked'; fetch('http://127.0.0.1:9/fetched')</script>
<form action="http://127.0.0.1:9/form"><button autofocus>send</button></form>
<h1 id="shown">A page of the user's</h1><iframe src="http://127.0.0.1:9/frame"></iframe>"""


def moment(second: float) -> float:
    return (NOON + timedelta(seconds=second)).timestamp()


def usage(seconds: float) -> StepUsage:
    points = tuple(
        UsagePoint(n * seconds / 120, 1.5 + n % 7 / 10, 300 + 3 * n, n % 100, 900)
        for n in range(120)
    )
    return StepUsage(
        moment(0), seconds, 2.0 * seconds, 2.1, 660, 450, 48, 900, 16_384, False, points
    )


def step(name: str, begin: float, took: float, **more: Any) -> StepRecord:
    metadata = StepMetadata(
        "sb-GE009VQ49A1DKQ31S1P63GTDA0",
        gpu="T4",
        cpu=4.0,
        memory=2048,
        requested=moment(begin),
        started=moment(begin + 1),
        begun=moment(begin + 3),
    )
    plain = StepRecord(
        name,
        "completed",
        start=NOON + timedelta(seconds=begin + 3),
        end=NOON + timedelta(seconds=begin + 3 + took),
        metadata=metadata,
        usage=usage(took),
        id=f"{name} {more.get('attempt', 1)}",
    )
    return replace(plain, **more)


def report(
    *attempts: StepRecord,
    status: str = "completed",
    more: tuple[StepRecord, ...] = (),
    artifacts: tuple[Artifact, ...] = (),
    text: str = "training",
    url: str | None = None,
    started: bool = True,
) -> Report:
    """Return the report of a run.

    Args:
        attempts: The records of its steps.
        status: ZenML's status of the run.
        more: Steps without a record.
        artifacts: What it has made.
        text: Its name, and every other text of its own.
        url: Its page in ZenML.
        started: Whether it had a sandbox.
    """
    metadata = RunMetadata(
        "modal",
        "per_step",
        "app",
        "ap-1",
        "sb-1",
        3600,
        cpu=1.0,
        memory=512,
        requested=moment(2),
        commit="c0ffee" + "0" * 34,
    )
    ends = [one.end for one in attempts if one.end is not None]
    finished = status in {"completed", "failed", "stopped"}
    run = RunRecord(
        RUN_ID,
        text,
        text,
        status,
        NOON,
        NOON,
        max(ends, default=NOON + timedelta(seconds=5)) if finished else None,
        reason=text if status == "failed" else None,
        metadata=metadata if started else None,
        stack=Named("st-1", text),
        user=Named("us-1", text),
        url=url,
    )
    last = {one.name: one for one in attempts}
    modal = NOT_ASKED if finished else SandboxState("running")
    view = derive_status(run, [*last.values(), *more], modal)
    now = NOON + timedelta(hours=1) if finished else max(ends) + timedelta(seconds=5)
    return Report(
        view,
        timeline_of(view, attempts, now.timestamp()),
        RunCost(Decimal("0.1234"), {name: Decimal("0.01") for name in last}),
        artifacts,
        dict.fromkeys(last, (f"the last line of {text}",)),
        (f"pipeline: {text}",),
        (f"Plan of {text}",),
        (Note(f"A note on {text}", (f"modalrun status {text}",)),),
        now,
    )


def mixed(text: str = "a text") -> Report:
    """Return the report of a run with steps in all states and artifacts of all kinds."""
    trace = tuple(f'  File "lib/{n}.py", line {n}, in {text}' for n in range(12))
    failure = Failure(text, "ValueError", f"lib/{text[:10]}.py:3", trace[-6:], trace)
    shown = (
        Visualization("html", PAGE if text == "a text" else HOSTILE_PAGE),
        Visualization("image", PIXEL),
        Visualization("csv", f"name,count\n{text},1\n"),
        Visualization("markdown", f"# {text}\n\n| a | b |\n"),
        Visualization("json", '{"accuracy": 0.98}'),
        Visualization("note", f"It is not shown: {text}."),
    )
    return report(
        step("load", 5, 12),
        step("tokenize", 20, 9, upstream=("load",), status="cached", metadata=None),
        step("train", 22, 30, upstream=("load",), status="retried"),
        step("train", 70, 60, upstream=("load",), attempt=2),
        step(f"evaluate {text}"[:250], 134, 8, upstream=("train", "tokenize"))
        if text == "a text"
        else step(text[:250], 134, 8, upstream=("train", "tokenize")),
        step("publish", 146, 3, upstream=("train",), status="failed", failure=failure),
        status="failed",
        more=(StepRecord("announce", "not run", upstream=("publish",)),),
        artifacts=(
            Artifact("train", "model", text, "1", text, f"s3://bucket/{text}"),
            Artifact("publish", "page", text, "2", "HTMLString", f"s3://bucket/{text}", shown),
        ),
        text=text,
        url=None if text == "a text" else "javascript:alert(1)",
    )


def large(steps: int) -> Report:
    """Return the report of a run of many steps that ran in waves of ten, with usage."""
    attempts = [
        step(
            f"step_{n}",
            5 + n // 10 * 20,
            12 + n % 5,
            upstream=tuple(f"step_{m}" for m in range((n // 10 - 1) * 10, n // 10 * 10) if m >= 0),
        )
        for n in range(steps)
    ]
    return report(*attempts, text="wide")
