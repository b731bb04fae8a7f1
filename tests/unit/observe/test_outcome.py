"""How a run has ended, by the end of its sandbox and ZenML's record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modalrun.observe.outcome import derive_outcome
from modalrun.run.events import StepEvent
from modalrun.run.failure_hints import hint_on_failure
from modalrun.run.progress import RunProgress
from modalrun.run.sandbox_exit import read_exit
from tests.unit.observe.test_attach import Bench


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize(("keeps", "begun"), [(True, False), (True, True), (False, False)])
def test_an_entrypoint_that_is_kept_and_runs_no_command(
    code: int, keeps: bool, begun: bool
) -> None:
    bench = Bench()
    progress = RunProgress(bench.handle.steps)
    if begun:
        progress.apply(StepEvent("load", "running", at=1.0))

    derive_outcome(
        replace(bench.handle, keeps_entrypoint=keeps), progress, read_exit(code), bench.zenml
    )

    (reason,) = bench.zenml.reasons
    assert ("'keep_entrypoint'" in reason) is (keeps and not begun)
    assert ('exec "$@"' in (hint_on_failure(reason) or "")) is (keeps and not begun)
