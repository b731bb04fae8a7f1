"""Start another driver for a run whose driver has ended."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from modalrun.control.resume import resume
from modalrun.errors import ConnectionLostError, Interrupted, NotFoundError, UsageError
from modalrun.observe.attach import RunHandle
from modalrun.run.metadata import RunMetadata
from modalrun.run.run_plan import PlannedStep
from modalrun.run.source import Source
from modalrun.submit import creation, withdrawal
from modalrun.submit.source.changes import hashes_to_store
from modalrun.submit.source.staging import hash_files, hash_tree, stage_again
from modalrun.submit.source.tree import SourceSelection
from modalrun.util import interrupts
from tests.unit.fake_zenml import FakeZenML, compiled
from tests.unit.fakes import RUN_ID, Effects, FakeModal, FakeObserver
from tests.unit.submit.submission_bench import TERMINATE

READ = "read run and steps"
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
METADATA = RunMetadata(
    "local", "per_step", "an-app", "ap-1", "sb-2", 600, earlier="sb-1", resumes=[1000.0]
)


STEPS = (PlannedStep("load"), PlannedStep("train", ("load",)))
CHECKS = ["connect local", "check names", "check workspace"]


class Bench:
    """A `per_step` run on fakes, and its source tree of two files."""

    def __init__(self, root: Path) -> None:
        self.effects = Effects()
        self.zenml = FakeZenML(self.effects)
        self.modal = FakeModal(self.effects)
        self.observer = FakeObserver()
        self.root = root
        files = hash_files(root)
        self.zenml.source = Source(hash_tree(files), hashes_to_store(files), str(root))
        self.zenml.compiled = compiled(*STEPS, mode="per_step")
        self.zenml.run = replace(self.zenml.run, metadata=METADATA)
        # It has ended.
        self.modal.last = "sb-2"

    def in_pipeline_mode(self) -> None:
        """Let it have no driver."""
        self.zenml.compiled = compiled(*STEPS)

    def resume(self, source_root: Path | None = None) -> RunHandle | str:
        return resume(
            RUN_ID,
            self.observer,
            source_root=source_root or self.root,
            zenml=self.zenml,
            modal=self.modal,
        )

    def resumed(self, source_root: Path | None = None) -> RunHandle:
        handle = self.resume(source_root)
        assert isinstance(handle, RunHandle)
        handle.recording.join()
        return handle


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    root = tmp_path / "src"
    root.mkdir()
    (root / "training.py").write_text("1")
    (root / "data.py").write_text("2")
    return Bench(root)


def test_another_driver_takes_over(bench: Bench) -> None:
    handle = bench.resumed()
    assert bench.effects == [*CHECKS, "build images", READ, "create sandbox", "record sandbox"]
    assert handle.resumed
    assert handle.ended == frozenset()
    assert (handle.run_id, handle.sandbox.id, handle.steps) == (RUN_ID, "sb-new", ("load", "train"))
    request = bench.modal.request
    assert request["spec"].name == f"modalrun-{RUN_ID}"
    assert request["spec"].env["MODALRUN_TAKE_OVER"] == "1"
    assert request["spec"].image == "im-1"
    assert request["earlier"] == "sb-2"
    assert request["files"] == ["data.py", "training.py"]
    assert request["secrets"]["ZENML_STORE_API_TOKEN"] == "secret"
    assert request["secrets"]["MODAL_TOKEN_SECRET"] == "as-1"
    assert bench.zenml.metadata["modalrun_sandbox_id"] == "sb-new"
    assert bench.zenml.metadata["modalrun_earlier"] == "sb-1,sb-2"
    requested = bench.zenml.metadata["modalrun_requested"]
    assert bench.zenml.metadata["modalrun_resumes"] == [1000.0, requested]


def test_a_run_sandbox_that_was_never_recorded_counts_as_earlier(bench: Bench) -> None:
    bench.modal.last = "sb-3"
    bench.resumed()
    assert bench.modal.request["earlier"] == "sb-3"
    assert bench.zenml.metadata["modalrun_earlier"] == "sb-1,sb-2,sb-3"


def test_a_stop_request_does_not_end_the_new_driver(bench: Bench) -> None:
    bench.zenml.stopping = True
    bench.resumed()
    assert "end sandboxes" not in bench.effects


def test_a_finished_run_is_left_as_it_is(bench: Bench) -> None:
    bench.zenml.run = replace(bench.zenml.run, status="completed")
    assert bench.resume() == (f"The run {RUN_ID} has ended: completed. There is nothing to resume.")
    assert not bench.effects


def test_a_run_whose_driver_runs_is_left_as_it_is(bench: Bench) -> None:
    bench.modal.existing = "sb-2"
    answer = bench.resume()
    assert isinstance(answer, str)
    assert "sb-2" in answer
    assert bench.effects == CHECKS


def test_a_run_sandbox_that_runs_unrecorded_is_left_as_it_is(bench: Bench) -> None:
    """The answer to its creation was lost (exit 9), so that nothing of it is recorded."""
    bench.modal.existing = "sb-9"
    bench.zenml.source = None
    answer = bench.resume()
    assert isinstance(answer, str)
    assert "sb-9 is running" in answer
    bench.modal.existing = None
    with pytest.raises(UsageError, match="no record of the files"):
        bench.resume()


@pytest.mark.parametrize("stored", [False, True])
def test_a_run_without_a_driver_is_refused(bench: Bench, stored: bool) -> None:
    bench.in_pipeline_mode()
    if not stored:
        bench.zenml.run = replace(bench.zenml.run, metadata=None)
    with pytest.raises(UsageError, match="no driver") as caught:
        bench.resume()
    assert "mode: per_step" in str(caught.value.hint)
    bench.zenml.run = replace(bench.zenml.run, parent="a-parent")
    with pytest.raises(UsageError, match="continues with its parent"):
        bench.resume()
    assert not bench.effects


def test_a_paused_run_continues_without_a_driver(bench: Bench) -> None:
    bench.in_pipeline_mode()
    bench.zenml.run = replace(bench.zenml.run, status="paused")
    # The one that is about to end.
    bench.modal.existing = "sb-2"

    handle = bench.resumed()

    created = ["wait sb-2", "build images", READ, "create sandbox", "record sandbox"]
    assert bench.effects == [*CHECKS, *created]
    assert (handle.sandbox.id, bench.modal.request["earlier"]) == ("sb-new", "sb-2")
    assert bench.modal.request["manifest"] is None
    assert bench.modal.request["files"] == ["data.py", "training.py"]
    assert "MODAL_TOKEN_SECRET" not in bench.modal.request["secrets"]


def test_a_changed_source_tree_is_refused(bench: Bench) -> None:
    (bench.root / "training.py").write_text("changed")
    (bench.root / "data.py").unlink()
    with pytest.raises(UsageError, match=r"training\.py \(changed\), data\.py \(missing\)"):
        bench.resume()
    assert bench.effects == CHECKS


def test_a_source_tree_that_is_not_here_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        bench.resume(tmp_path / "elsewhere")
    assert bench.effects == CHECKS


def test_new_files_are_left_out_and_named(bench: Bench) -> None:
    (bench.root / "notes.py").write_text("3")
    bench.resumed()
    assert bench.modal.request["files"] == ["data.py", "training.py"]
    assert bench.observer.lines[0] == "note: new files, which the run does not get: notes.py"


def test_the_tree_at_another_place(bench: Bench, tmp_path: Path) -> None:
    bench.root.rename(tmp_path / "moved")
    bench.resumed(tmp_path / "moved")
    assert bench.modal.request["files"] == ["data.py", "training.py"]


@pytest.mark.parametrize("changed", [False, True])
def test_a_large_tree_is_compared_as_a_whole(bench: Bench, changed: bool) -> None:
    assert bench.zenml.source is not None
    bench.zenml.source = replace(bench.zenml.source, files={})
    if changed:
        (bench.root / "notes.py").write_text("3")
        with pytest.raises(UsageError, match="only the total hash is stored"):
            bench.resume()
    else:
        bench.resumed()


def test_another_folder_is_refused_and_told_from_where_it_came(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    with pytest.raises(UsageError, match="holds none of the run's files") as caught:
        bench.resume(tmp_path / "other")
    assert f"It was submitted from {bench.root}." in str(caught.value.hint)
    assert bench.effects == CHECKS


def test_another_folder_is_named_before_what_source_include_lacks(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    selection = SourceSelection(tmp_path / "other", include=("data.py", "more"))
    source = bench.zenml.source
    assert source is not None
    with pytest.raises(UsageError, match="holds none of the run's files"):
        stage_again(source, selection, tmp_path / "copy")
    (tmp_path / "other" / "training.py").write_bytes((bench.root / "training.py").read_bytes())
    with pytest.raises(UsageError, match=r"data\.py \(missing\)"):
        stage_again(source, selection, tmp_path / "copy2")


@pytest.mark.parametrize("added", [(), ("data",)])
def test_a_rerun_gets_a_new_file_if_its_command_line_names_it(
    bench: Bench, tmp_path: Path, added: tuple[str, ...]
) -> None:
    (bench.root / ".gitignore").write_text("data/\n")
    (bench.root / "data").mkdir()
    (bench.root / "data/labels.csv").write_text("a,1\n")
    submitted = bench.zenml.source
    assert submitted is not None
    selection = SourceSelection(bench.root, include=("data",), added=added)

    record, new, tree = stage_again(submitted, selection, tmp_path / "copy", rerun=True)

    went = {"data/labels.csv"} if added else set()
    assert set(record.files) == {*submitted.files, *went}
    assert {file.path.as_posix() for file in tree.files} == set(record.files)
    assert record.digest == hash_tree(hash_files(tmp_path / "copy"))
    assert set(new) == {".gitignore", "data/labels.csv"} - went


def test_a_rerun_whose_command_line_names_no_file_that_is_there_is_refused(
    bench: Bench, tmp_path: Path
) -> None:
    submitted = bench.zenml.source
    assert submitted is not None
    selection = SourceSelection(bench.root, include=("labels",), added=("labels",))
    with pytest.raises(UsageError, match="'source_include' names labels"):
        stage_again(submitted, selection, tmp_path / "copy", rerun=True)


def test_what_its_metadata_says_of_mode_app_and_sandbox_is_not_believed(bench: Bench) -> None:
    forged = replace(METADATA, mode="pipeline", app="x", environment="y", sandbox_id="sb-9")
    bench.zenml.run = replace(bench.zenml.run, metadata=forged)
    handle = bench.resumed()
    assert handle.plan.settings.mode == "per_step"
    assert handle.plan.settings.app_name == "zenml-pipeline-training"
    assert handle.plan.settings.modal_environment == "main"
    assert bench.modal.request["earlier"] == "sb-2", "the one of its name"


def test_the_environment_of_the_record_is_believed_where_modal_knows_the_sandbox(
    bench: Bench,
) -> None:
    bench.zenml.run = replace(bench.zenml.run, metadata=replace(METADATA, environment="dev"))
    bench.modal.last_in = "dev"
    handle = bench.resumed()
    assert handle.plan.settings.modal_environment == "dev"
    assert bench.modal.request["secrets"]["MODAL_ENVIRONMENT"] == "dev"
    assert "  target   local, app zenml-pipeline-training, environment dev" in bench.observer.lines


def test_the_environment_of_the_deployment_beats_the_record(bench: Bench) -> None:
    bench.zenml.compiled = compiled(*STEPS, mode="per_step", modal_environment="dev")
    bench.zenml.run = replace(bench.zenml.run, metadata=replace(METADATA, environment="y"))
    bench.modal.last_in = "dev"
    assert bench.resumed().plan.settings.modal_environment == "dev"


def test_where_modal_knows_no_sandbox_another_environment_is_named_first(bench: Bench) -> None:
    bench.zenml.run = replace(bench.zenml.run, metadata=replace(METADATA, environment="dev"))
    bench.modal.last = None
    with pytest.raises(UsageError, match="in the Modal environment 'dev'") as caught:
        bench.resume()
    assert "MODAL_ENVIRONMENT=dev" in str(caught.value.hint)
    assert bench.effects == CHECKS[:1]


def test_a_paused_run_waits_for_the_sandbox_of_its_name_alone(bench: Bench) -> None:
    forged = replace(METADATA, sandbox_id="sb-9")
    bench.zenml.run = replace(bench.zenml.run, status="paused", metadata=forged)
    bench.modal.existing = "sb-2"
    bench.resumed()
    assert "wait sb-2" in bench.effects
    assert "wait sb-9" not in bench.effects


def test_a_run_that_the_local_server_does_not_know_is_not_run_here(bench: Bench) -> None:
    # Its metadata may say `target: local` of a run on Modal.
    bench.modal.last = None
    with pytest.raises(NotFoundError, match="does not know the run"):
        bench.resume()
    assert bench.effects == CHECKS


def test_without_a_record_of_its_files_it_is_refused(bench: Bench) -> None:
    bench.zenml.source = None
    with pytest.raises(UsageError, match="no record of the files"):
        bench.resume()


def test_a_failed_creation_leaves_the_record_open(bench: Bench) -> None:
    bench.effects.errors["create sandbox"] = ConnectionLostError("Modal does not answer.")
    with pytest.raises(ConnectionLostError):
        bench.resume()
    assert bench.effects[-1] == "create sandbox"
    assert bench.zenml.run.status == "running"


def test_a_signal_before_its_sandbox_is_created_leaves_the_run_as_it_was(bench: Bench) -> None:
    bench.effects.errors["build images"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bench.resume()
    assert bench.effects == [*CHECKS, "build images"]
    assert bench.observer.lines == [
        f"Interrupted. The run {RUN_ID} was not resumed: it is as it was."
    ]


@pytest.mark.parametrize("numbers", [(INT,), (INT, TERM), (TERM,), (HUP, HUP)])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_paused_run_that_has_begun_to_continue_is_paused_again(
    bench: Bench, numbers: tuple[int, ...], recorded: bool
) -> None:
    bench.in_pipeline_mode()
    bench.zenml.run = replace(bench.zenml.run, status="paused")
    main = threading.get_ident()

    def create(_: object) -> None:
        bench.zenml.run = replace(bench.zenml.run, status="running")
        for number in numbers:
            signal.pthread_kill(main, number)

    bench.modal.on_create = create
    if not recorded:
        bench.effects.errors["pause again"] = ConnectionLostError("ZenML is away.")
    with interrupts.installed(), pytest.raises((KeyboardInterrupt, Interrupted)):
        bench.resume()
    interrupts.forget()
    assert bench.effects[-2:] == [TERMINATE, "pause again"]
    (told,) = bench.observer.lines
    if recorded:
        assert bench.zenml.run.status == "paused"
        assert told == f"Interrupted. The run {RUN_ID} was not resumed: it is as it was."
    else:
        assert "ZenML has not answered" in told and f"'modalrun status {RUN_ID}'" in told


@pytest.mark.parametrize("answers", [True, False])
def test_a_signal_while_its_sandbox_is_created_ends_that_alone(
    bench: Bench, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "CREATION_GRACE_SECONDS", 30 if answers else 0.01)
    monkeypatch.setattr(withdrawal, "WITHDRAW_SECONDS", 0.05)
    monkeypatch.setattr(withdrawal, "WITHDRAW_PAUSE", 0.01)
    main, over = threading.get_ident(), threading.Event()

    def create(_: object) -> None:
        signal.pthread_kill(main, signal.SIGTERM)
        if not answers:
            over.wait(30)

    bench.modal.on_create = create
    if not answers:
        bench.effects.errors[TERMINATE] = NotFoundError("There is no such sandbox.")
    with interrupts.installed(), pytest.raises(Interrupted):
        bench.resume()
    interrupts.forget()
    over.set()
    assert TERMINATE in bench.effects
    assert bench.zenml.run.status == "running" and not bench.zenml.reasons
    (told,) = bench.observer.lines
    assert ("was not resumed: it is as it was" in told) == answers
    assert ("Modal has not answered" in told and f"'modalrun resume {RUN_ID}'" in told) != answers
