"""One ending rule: whatever user code does is a failed attempt, in every mode.

The table: ways to end x modes x sync and async x with and without a retry.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import Run, World

pytestmark = pytest.mark.e2e

PROCESS = "The step's process "
REASONS = {
    "raises": "ValueError: bad luck",
    "exits": "SystemExit: 3",
    "exits_well": "SystemExit: 0",
    "exits_saying": "SystemExit: that's it",
    "interrupts": "KeyboardInterrupt",
    "interrupts_main": "KeyboardInterrupt",
    "leaves_generator": "GeneratorExit",
    "odd": "ending_steps.Odd: odd",
    "unprintable": "RuntimeError: Unprintable, whose text can't be made: RuntimeError",
    "unpicklable": "ending_steps.Unpicklable: locked",
    "recurs": "RecursionError: maximum recursion depth exceeded",
    "imports_nothing": "ModuleNotFoundError: No module named 'no_such_module'",
    "needs_memory": "MemoryError",
    "leaves_0": f"{PROCESS}ended with exit code 0.",
    "leaves_1": f"{PROCESS}ended with exit code 1.",
    "leaves_70": f"{PROCESS}ended with exit code 70.",
    "leaves_137": f"{PROCESS}ended with exit code 137.",
    "leaves_143": f"{PROCESS}ended with exit code 143.",
    "sigterm": f"{PROCESS}died of SIGTERM.",
    "sigint": "KeyboardInterrupt",
    "sighup": f"{PROCESS}died of SIGHUP.",
    "sigkill": f"{PROCESS}was killed (SIGKILL).",
    "sigsegv": f"{PROCESS}died of SIGSEGV.",
    "sigabrt": f"{PROCESS}died of SIGABRT.",
    "group": f"{PROCESS}died of SIGTERM.",
    "never": f"{PROCESS}ended with exit code 0.",
}
"""Way to end -> the reason that ZenML records, in every mode."""

FEW = ["raises", "leaves_0", "sigterm", "sigkill"]


def spec(mode: str, ways: list[str], retries: int) -> str:
    return f"""
pipeline: ends.ends
target: local
execution_mode: continue_on_failure
parameters: {{ways: {json.dumps(ways)}, retries: {retries}}}
settings: {{orchestrator: {{mode: {mode}, max_parallelism: 3}}}}
"""


def reason(exception: str) -> str:
    """Return the last line of what ZenML has recorded of an exception."""
    return str(json.loads(exception)["traceback"]).strip().splitlines()[-1]


def assert_ended(run: Run, ways: list[str], retries: int) -> None:
    """Every attempt has failed for its reason, and all else went on."""
    assert run.status == "failed"
    ways = [*(ways or REASONS), "never"]
    expected = dict.fromkeys(ways, "failed") | {"last": "completed"}
    assert run.statuses == expected
    for way in set(ways):
        attempts = [step for step in run.steps if step.name == way]
        assert [step.version for step in attempts] == list(range(1, retries + 2)), way
        assert all(step.end for step in attempts), way
        assert not any("WorkerDied" in step.exception for step in attempts), way
        assert all(reason(step.exception).startswith(REASONS[way]) for step in attempts), (
            way,
            [reason(step.exception) for step in attempts],
        )


@pytest.mark.parametrize(
    ("mode", "retries", "waits", "ways"),
    [
        ("pipeline", 1, False, []),
        ("per_step", 0, True, FEW),
        *(
            pytest.param(mode, retries, waits, [], marks=pytest.mark.exhaustive)
            for mode in ("pipeline", "per_step")
            for retries in (0, 1)
            for waits in (True, False)
            if (mode, retries, waits) != ("pipeline", 1, False)
        ),
    ],
)
@pytest.mark.timeout(600)
def test_every_way_to_end_is_a_failed_attempt(
    world: World, mode: str, retries: int, waits: bool, ways: list[str]
) -> None:
    command = world.popen(spec(mode, ways, retries), *([] if waits else ["--async"]))

    done = command.finish(500)

    if waits:
        assert done.exit_code == 1, done.stderr
        assert "Run failed: " in done.stderr
        assert re.search(r"^last +completed", done.stderr, re.M), done.stderr
        assert re.search(r"^after +not run", done.stderr, re.M), done.stderr
    else:
        assert done.exit_code == 0, done.stderr
    # ZenML says that a run has failed before its last step is over.
    world.wait_until(
        lambda: (boxes := world.sandboxes()) and all(box.finished_at for box in boxes),
        "all is over",
        500,
    )
    assert_ended(world.only_run(), ways, retries)


ZENML = """
import os, sys
os.environ["ZENML_LOGGING_VERBOSITY"] = "ERROR"
sys.path.insert(0, {project!r})
os.environ["ZENML_CUSTOM_SOURCE_ROOT"] = {project!r}
from ends import one
for way in {ways!r}:
    try:
        one(way, {retries})
    except BaseException as error:
        pass
result = None
"""

ALIKE = [
    way
    for way, said in REASONS.items()
    # ZenML's own process would end too, or it has no text to record.
    if not said.startswith(PROCESS) and way not in {"unprintable"}
]


@pytest.mark.exhaustive
def test_zenml_records_the_same(world: World) -> None:
    """ZenML's local orchestrator, on the same steps."""
    done = world.submit(spec("pipeline", ALIKE, 1))
    assert done.exit_code == 1, done.stderr
    (ours,) = world.runs()

    world.zenml(ZENML.format(project=str(world.project), ways=ALIKE, retries=1))

    for run in world.runs()[1:]:
        way = run.steps[0].name
        mine = [step for step in ours.steps if step.name == way]
        assert [(s.status, s.version) for s in run.steps] == [(s.status, s.version) for s in mine]
        # ZenML may name a module from the folder above.
        said = [reason(s.exception).removeprefix("project.") for s in run.steps]
        assert said == [reason(s.exception) for s in mine]
    assert len(world.runs()) == len(ALIKE) + 1


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("static", "pipeline"),
        ("dynamic", "pipeline"),
        pytest.param("static", "per_step", marks=pytest.mark.exhaustive),
    ],
)
def test_what_has_no_text_is_a_failure_outside_of_a_function_too(
    world: World, kind: str, mode: str
) -> None:
    spec = f"pipeline: unprintable.{kind}\ntarget: local\n"

    done = world.submit(spec, "--mode", mode)

    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    assert [step.version for step in run.steps if step.name == "makes"] == [1, 2]
    for step in run.steps:
        assert reason(step.exception).startswith(REASONS["unprintable"]), step
    assert f"{REASONS['unprintable']} (unprintable.py:" in run.reason


@pytest.mark.parametrize(
    "mode", ["per_step", pytest.param("pipeline", marks=pytest.mark.exhaustive)]
)
def test_what_has_no_text_is_a_failure_of_the_import_too(world: World, mode: str) -> None:
    spec = "pipeline: unprintable_import.static\ntarget: local\n"

    done = world.submit(spec, "--mode", mode)

    assert done.exit_code == 1, done.stderr
    run = world.only_run()
    (step,) = run.steps
    assert reason(step.exception).startswith(REASONS["unprintable"]), step
    assert f"{REASONS['unprintable']} (unprintable_import.py:" in run.reason
