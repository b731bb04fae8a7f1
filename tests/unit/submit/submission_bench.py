"""A submission on fakes."""

from __future__ import annotations

import pytest

from modalrun.run.metadata import RunMetadata
from modalrun.spec.run_spec import RunSpec
from modalrun.submit.lean import unless_interrupted
from modalrun.submit.preflight import check
from modalrun.submit.submission import Submission
from tests.unit.fake_zenml import FakeZenML, compiled
from tests.unit.fakes import RUN_ID, Effects, FakeModal, FakeObserver

TERMINATE = f"terminate modalrun-{RUN_ID}"


class Bench:
    """A submission on fakes.

    Attributes:
        submission: The submission.
        effects: What it has done to ZenML and to Modal, in order.
    """

    def __init__(self, spec: RunSpec, *, previous: RunMetadata | None = None, **settings: object):
        self.effects = Effects()
        self.zenml = FakeZenML(self.effects, "initializing")
        self.modal = FakeModal(self.effects)
        self.observer = FakeObserver()
        job = check(spec, compiled(**settings), FakeObserver(), modal=self.modal)
        self.effects.clear()
        self.submission = Submission(job, self.observer, self.zenml, previous=previous)

    def create(self, run_id: str | None = None) -> None:
        """Create the run; `run_id` is that of one that ZenML has created."""
        self.submission.create(
            lambda placeholder: unless_interrupted(
                lambda: self.zenml.create_run(placeholder), placeholder
            ),
            run_id,
        )
        if self.submission.handle is not None:
            self.submission.handle.recording.join()

    def fail(self, effect: str, error: BaseException) -> None:
        """Make an effect fail, and check that the submission fails with its error."""
        self.effects.errors[effect] = error
        with pytest.raises(type(error)):
            self.create()
