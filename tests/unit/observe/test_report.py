"""What the report of a run is made of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modalrun.observe.report import read_report
from modalrun.run.metadata import RunMetadata
from modalrun.run.records import DeploymentRecord, Named
from modalrun.spec.spec_record import SpecRecord
from tests.unit.fake_zenml import FakeZenML
from tests.unit.fakes import Effects

EARLIER = "1d1f5b62-0000-4000-8000-000000000000"
PLACE = RunMetadata("local", "pipeline", "app", "ap-1", "sb-1", rerun_of=EARLIER)


@pytest.fixture
def zenml() -> FakeZenML:
    zenml = FakeZenML(Effects(), "completed")
    zenml.run = replace(zenml.run, metadata=PLACE)
    return zenml


def test_the_shown_run_spec_runs_where_the_run_did(zenml: FakeZenML) -> None:
    record = SpecRecord({"pipeline": "q.q"}, [("--gpu", ("gpu",), "T4")])
    zenml.deployment = DeploymentRecord("d", environment=record.to_environment())
    zenml.run = replace(zenml.run, stack=Named("st-1", "remote"))
    found = read_report(zenml.run.id, (), zenml=zenml)
    assert found.spec == ("pipeline: q.q", "target: local", "stack: remote", '# --gpu "T4"')


def test_no_value_that_may_be_secret_is_shown(zenml: FakeZenML) -> None:
    names = ("environment", "runtime_environment")
    docker: dict[str, object] = {name: {"KEY": "s3cret"} for name in names}
    options = {"build_options": {"buildargs": {"KEY": "s3cret"}}}
    docker["parent_image_build_config"] = options
    flags = [("--set", ("settings", "docker", name, "KEY"), "s3cret") for name in names]
    flags += [("--set", ("settings", "docker", "runtime_environment"), {"KEY": "s3cret"})]
    record = SpecRecord({"settings": {"docker": docker}}, flags)
    zenml.deployment = DeploymentRecord("d", environment=record.to_environment())
    shown = "\n".join(read_report(zenml.run.id, (), zenml=zenml).spec)
    assert "s3cret" not in shown
    assert shown.count("***") == 6


def test_a_rerun_names_the_run_that_it_reruns(zenml: FakeZenML) -> None:
    assert read_report(zenml.run.id, (), zenml=zenml).related == (("rerun of", "a-run", EARLIER),)
    zenml.run = replace(zenml.run, metadata=replace(PLACE, rerun_of=None))
    assert read_report(zenml.run.id, (), zenml=zenml).related == ()
    zenml.run = replace(zenml.run, metadata=None, parent=EARLIER)
    assert read_report(zenml.run.id, (), zenml=zenml).related == (("child of", "a-run", EARLIER),)
