"""Find the sandbox that `modalrun exec` means, or say why there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modalrun.control import exec as exec_module
from modalrun.control.exec import Place, execute, find_place
from modalrun.errors import ConflictError, ModalrunError, NotFoundError, UsageError
from modalrun.modal_api.client import ForeignSandboxError
from modalrun.run.contract import MODAL_TOKEN, ORDER
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import NOT_RUN, RunRecord, StepRecord
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import Effects, FakeModal

PIPELINE = RunMetadata("local", "pipeline", "an-app", "ap-1", "sb-run", 600)
PER_STEP = replace(PIPELINE, mode="per_step")

STEPS = (
    StepRecord("load", "completed"),
    StepRecord("left", "running", metadata=StepMetadata("sb-left")),
    StepRecord("right", "running", metadata=StepMetadata("sb-right")),
    StepRecord("last", NOT_RUN),
)


def place(
    step: str | None = None,
    *,
    steps: tuple[StepRecord, ...] = STEPS,
    metadata: RunMetadata | None = PIPELINE,
    status: str = "running",
    dynamic: bool = False,
) -> Place:
    effects = Effects()
    zenml = FakeZenML(effects, status)
    zenml.run = replace(zenml.run, metadata=metadata)
    zenml.steps = steps
    if dynamic:
        zenml.step_names = lambda _: None  # type: ignore[method-assign]
    return find_place(zenml.run.id, step, zenml=zenml, modal=FakeModal(effects))


def test_the_sandbox_of_a_step() -> None:
    assert place().sandbox == "sb-run"
    assert place("left").sandbox == "sb-run"
    found = place("left", metadata=PER_STEP)
    assert (found.sandbox, found.subject) == ("sb-left", "step 'left'")
    assert place(metadata=PER_STEP, steps=STEPS[2:]).sandbox == "sb-right"
    inline = (StepRecord("inline", "running"),)
    assert place(metadata=PER_STEP, steps=inline, dynamic=True).sandbox == "sb-run"


def test_a_step_that_has_just_begun_is_not_taken_for_the_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = (StepRecord("train", "running"),)
    recorded = replace(begun[0], metadata=StepMetadata("sb-train"))

    class Late(FakeZenML):
        def step_names(self, run_id: str) -> tuple[str, ...] | None:
            names, self.steps = super().step_names(run_id), (recorded,)
            return names

    zenml = Late(Effects(), "running")
    zenml.run, zenml.steps = replace(zenml.run, metadata=PER_STEP), begun
    found = find_place(zenml.run.id, None, zenml=zenml, modal=FakeModal(Effects()))
    assert found.sandbox == "sb-train"

    monkeypatch.setattr(exec_module, "RECORD_SECONDS", 0)
    with pytest.raises(NotFoundError, match="no sandbox on record for the step 'train'") as caught:
        place(metadata=PER_STEP, steps=begun)
    assert "try again" in (caught.value.hint or "")


def test_the_token_is_hidden_where_a_driver_has_one() -> None:
    inline = (StepRecord("inline", "running"),)
    assert place(metadata=PER_STEP, steps=inline, dynamic=True).without == (*MODAL_TOKEN, ORDER)
    assert place("left", metadata=PER_STEP).without == (ORDER,)
    assert place().without == (ORDER,)


@pytest.mark.parametrize(
    ("step", "changes", "problem", "hint"),
    [
        ("load", {}, r"'load' has ended \(completed\)", "Running: left, right."),
        ("last", {}, "'last' has not begun", "Running: left, right."),
        ("lfet", {}, "no step named 'lfet'", "Did you mean 'left'?"),
        ("load", {"steps": STEPS[:1]}, "has ended", "No step of the run runs at present."),
        (None, {"metadata": PER_STEP, "steps": STEPS[:1]}, "No step of the run", "status"),
        (None, {"status": "completed"}, r"has ended \(completed\)", None),
        (None, {"metadata": None}, "has no sandbox", None),
    ],
)
def test_what_does_not_run_is_told(
    step: str | None, changes: dict[str, Any], problem: str, hint: str | None
) -> None:
    with pytest.raises(NotFoundError, match=problem) as caught:
        place(step, **changes)
    assert hint is None or hint in (caught.value.hint or "")


def test_with_several_steps_one_must_be_named() -> None:
    with pytest.raises(UsageError, match="2 steps of the run") as caught:
        place(metadata=PER_STEP)
    assert caught.value.hint == "Name one with --step: left, right."


def test_a_command_gets_the_variables_of_its_step() -> None:
    assert place("left").environment["OF_STEP"] == "left"
    assert place("left", metadata=PER_STEP).environment["OF_STEP"] == "left"
    # In `pipeline` mode it may run beside several steps.
    assert place().environment == {"OF_PIPELINE": "1"}


class Failing(FakeModal):
    """Fails when a command is to run."""

    def __init__(self, error: ModalrunError, *, ended: bool) -> None:
        super().__init__(Effects())
        self.error, self.ended = error, ended

    def has_ended(self, *_: Any) -> bool:
        if not self.ended:
            raise NotFoundError("Modal: there is no such sandbox.")
        return True

    def run_command(self, *_: Any, **__: Any) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "ended", "problem"),
    [
        (NotFoundError("Modal: gone"), True, "The sandbox of the step 'left' has ended."),
        (ConflictError("Already finished"), True, "The sandbox of the step 'left' has ended."),
        (ForeignSandboxError("not the run's"), True, "not the run's"),
        (NotFoundError("Modal: there is none"), False, "Modal: there is none"),
    ],
)
def test_a_sandbox_that_ends_meanwhile_or_is_elsewhere_is_told(
    error: ModalrunError, problem: str, *, ended: bool
) -> None:
    modal = Failing(error, ended=ended)
    with pytest.raises(NotFoundError) as caught:
        execute(place("left"), [], lambda *_: None, stdin=0, terminal=False, modal=modal)
    assert caught.value.problem == problem


def test_the_run_of_a_child_pipeline_names_the_run_whose_sandboxes_it_shares() -> None:
    zenml = FakeZenML(Effects())
    zenml.run = replace(zenml.run, parent="a-parent", root="a-root")
    with pytest.raises(NotFoundError, match="has no sandbox") as caught:
        find_place(zenml.run.id, None, zenml=zenml, modal=FakeModal(Effects()))
    assert "'modalrun exec a-root'" in (caught.value.hint or "")
    zenml.run = replace(zenml.run, children={"outer/inner": zenml.run})
    with pytest.raises(NotFoundError) as caught:
        find_place(zenml.run.id, "left", zenml=zenml, modal=FakeModal(Effects()))
    assert "'modalrun exec a-root --step outer/inner/left'" in (caught.value.hint or "")


class Parent(FakeZenML):
    """A run whose steps are all those of its children."""

    def read_run_and_steps(self, run_id: str) -> tuple[RunRecord, tuple[StepRecord, ...]]:
        return self.run, ()

    def environment_of(self, run_id: str, step: str | None) -> dict[str, str]:
        return {"OF": f"{run_id}: {step}"}


@pytest.mark.parametrize("label", ["inner", "inner_2/deep"])
@pytest.mark.parametrize("name", ["left", None])
def test_the_step_of_a_child_pipeline_is_named_by_its_label(label: str, name: str | None) -> None:
    zenml = Parent(Effects())
    child = replace(zenml.run, id="child")
    zenml.run = replace(zenml.run, metadata=PER_STEP, children={label: child})
    zenml.steps = STEPS[:2]
    step = f"{label}/{name}" if name else None
    found = find_place(zenml.run.id, step, zenml=zenml, modal=FakeModal(Effects()))
    assert (found.sandbox, found.subject) == ("sb-left", f"step '{label}/left'")
    assert (found.run_id, found.environment) == (zenml.run.id, {"OF": "child: left"})
    with pytest.raises(NotFoundError, match=rf"'{label}/load' has ended"):
        find_place(zenml.run.id, f"{label}/load", zenml=zenml, modal=FakeModal(Effects()))
