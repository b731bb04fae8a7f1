"""Ask Modal ahead: an answer is used only if the submission asks the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modalrun.errors import ConnectionLostError
from modalrun.run.source import Source
from modalrun.spec.run_spec import RunSpec
from modalrun.submit import preflight
from modalrun.submit.ahead import Asked, ModalAhead
from modalrun.submit.preflight import Job
from modalrun.submit.source.ahead import SourceAhead, copied_ahead, remembered
from modalrun.submit.source.selection import select
from modalrun.submit.source.tree import SourceSelection
from modalrun.submit.submission import Submission
from tests.unit.fake_zenml import FakeZenML, compiled
from tests.unit.fakes import Effects, FakeModal, FakeObserver


@pytest.fixture
def spec(tmp_path: Path, load: Callable[[str], RunSpec]) -> RunSpec:
    """A run spec beside a source tree of one module."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "training.py").write_text("")
    return load("pipeline: training.pipeline\ntarget: local\nsource_root: src\n")


class FakeAhead(ModalAhead, FakeModal):
    """Asks a fake ahead."""

    def __init__(
        self,
        earlier: Asked,
        source: SourceAhead | None = None,
        *,
        effects: Effects | None = None,
        built: frozenset[str] = frozenset(),
    ) -> None:
        FakeModal.__init__(self, Effects() if effects is None else effects)
        ModalAhead.__init__(self, earlier, source)
        self.built = built


class Bench:
    """Submissions of one spec, each of which asks ahead what the one before it has asked."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.effects = Effects()
        self.built: frozenset[str] = frozenset()
        self.on_source: Callable[[Path], object] = lambda _: None
        self.request: dict[str, Any] = {}
        self.asked: Any = None
        self.source: Any = None

    def submit(
        self,
        *,
        begin: bool = True,
        meanwhile: Callable[[], object] = lambda: None,
        **settings: object,
    ) -> list[str]:
        """Submit, and return the effects on Modal in order."""
        self.effects.clear()
        settings = {"app_name": "mine", **settings}
        copied = copied_ahead(self.spec.source_root, self.source)
        ahead = FakeAhead(
            Asked.from_json(self.asked), copied, effects=self.effects, built=self.built
        )
        ahead.on_source = self.on_source
        if begin:
            ahead.begin("modal")
        meanwhile()
        job = preflight.check(self.spec, compiled(**settings), FakeObserver(), modal=ahead)
        zenml = FakeZenML(self.effects, "initializing")
        submission = Submission(job, FakeObserver(), zenml, copied)
        submission.create(zenml.create_run)
        if submission.handle is not None:
            submission.handle.recording.join()
        self.built, self.request = ahead.built, ahead.request
        self._remember(job, ahead, submission.source)
        if copied is not None:
            copied.__exit__()
        return list(self.effects)

    def _remember(self, job: Job, ahead: ModalAhead, source: Source | None) -> None:
        assert source is not None
        self.asked = json.loads(json.dumps(ahead.asked.to_json()))
        self.source = json.loads(json.dumps(remembered(job.source, source)))


@pytest.fixture
def bench(spec: RunSpec) -> Bench:
    return Bench(spec)


def test_the_second_submission_builds_no_image_and_sends_the_source_before_the_run(
    bench: Bench,
) -> None:
    first = bench.submit()
    assert "build images" in first
    assert not [effect for effect in first if effect.startswith("send source")]
    second = bench.submit(begin=False)
    assert "build images" not in second
    assert second.index("send source for im-1") < second.index("create sandbox")
    assert second.count("send source for im-1") == 1
    assert second.count("look up images") == 1
    for effect in ("connect local", "check names", "check workspace", "create sandbox"):
        assert second.count(effect) == 1, effect


def test_what_was_asked_is_stored_without_credentials() -> None:
    ahead = FakeAhead(Asked())
    connection = ahead.connect("modal", credentials=("ak-1", "as-secret"))
    ahead.environment_name(connection, None)
    assert "as-secret" not in json.dumps(ahead.asked.to_json())
    assert ahead.asked.own_token


def test_a_stack_with_its_own_token_connects_with_no_other_one() -> None:
    ahead = FakeAhead(Asked(own_token=True))
    ahead.begin("modal")
    connection: Any = ahead.connect("modal", credentials=("ak-1", "as-1"))
    assert connection.credentials == ("ak-1", "as-1")
    assert ahead.effects == ["connect modal"]


def test_the_connection_of_another_token_is_not_used() -> None:
    ahead = FakeAhead(Asked())
    ahead.begin("modal")
    connection: Any = ahead.connect("modal", credentials=("ak-1", "as-1"))
    assert connection.credentials == ("ak-1", "as-1")


def test_a_variable_that_the_code_sets_makes_another_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ahead = FakeAhead(Asked())
    ahead.begin("modal")
    monkeypatch.setenv("MODAL_TOKEN_ID", "ak-of-the-code")
    ahead.connect("modal")
    assert ahead.effects.count("connect modal") == 2


def test_a_failure_ahead_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [ConnectionLostError("lost")]
    connect = FakeModal.connect

    def failing(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return connect(*arguments, **options)

    monkeypatch.setattr(FakeModal, "connect", failing)
    ahead = FakeAhead(Asked())
    ahead.begin("modal")
    ahead.connect("modal")
    assert ahead.effects == ["connect modal"]


def test_another_app_is_looked_up_and_its_image_comes_from_the_same_key(bench: Bench) -> None:
    bench.submit()
    again = bench.submit(begin=False, app_name="other")
    assert "build images" not in again and "create sandbox" in again


def test_an_image_that_modal_has_no_more_is_built(bench: Bench) -> None:
    bench.submit()
    bench.built = frozenset()
    again = bench.submit(begin=False)
    assert "build images" in again and "create sandbox" in again
    assert not [effect for effect in again if effect.startswith("send source")]


@pytest.mark.parametrize(
    "wrong", [None, [], "text", {"needs": 3}, {"images": {"key": 4}}, {"app": {"no": "name"}}]
)
def test_a_damaged_entry_changes_nothing(bench: Bench, wrong: Any) -> None:
    bench.submit()
    bench.asked, bench.source = wrong, wrong
    assert "create sandbox" in bench.submit(begin=False)


def test_an_entry_of_another_plan_changes_nothing(bench: Bench) -> None:
    bench.submit()
    bench.asked = {
        **bench.asked,
        "app": "gone",
        "images": {"0" * 64: "im-of-another"},
        "run_image": "im-of-another",
    }
    bench.built |= {"im-of-another"}
    again = bench.submit(begin=False)
    assert "build images" in again and "create sandbox" in again
    assert bench.request["spec"].image == "im-1"


@pytest.mark.parametrize("name", ["training.py", "new.py"])
def test_a_file_that_the_code_writes_when_it_is_imported_goes_along(
    bench: Bench, name: str
) -> None:
    bench.submit()
    written = bench.spec.source_root / name
    sent: list[str] = []
    bench.on_source = lambda folder: sent.append((folder / name).read_text())

    bench.submit(begin=False, meanwhile=lambda: written.write_text("changed = True"))

    assert sent == ["changed = True"]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[SourceSelection]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("a = 1\n")
    return SourceSelection(tmp_path / "code")


def test_an_unchanged_copy_is_taken(tree: SourceSelection) -> None:
    with SourceAhead(tree, "") as copied:
        source = copied.take(tree, select(tree))
        assert source is not None
        assert (copied.folder / "a.py").read_text() == "a = 1\n"
        assert not copied.is_that_of_earlier_run()
        with SourceAhead(tree, source.digest) as again:
            assert again.is_that_of_earlier_run()
    assert not copied.folder.parent.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a.py").write_text("a = 2\n"),
        lambda root: (root / "b.py").write_text(""),
        lambda root: (root / "a.py").unlink(),
        lambda root: (root / "a.py").chmod(0o755),
        lambda root: (root / "a.py").rename(root / "c.py"),
    ],
)
def test_a_copy_of_other_files_is_not_taken(
    tree: SourceSelection, change: Callable[[Path], object]
) -> None:
    with SourceAhead(tree, "") as copied:
        copied.is_that_of_earlier_run()
        change(tree.root)
        assert copied.take(tree, select(tree)) is None


def test_a_copy_by_other_rules_is_not_taken(tree: SourceSelection) -> None:
    other = SourceSelection(tree.root, include=("a.py",))
    with SourceAhead(tree, "") as copied:
        assert copied.take(other, select(other)) is None


def test_what_cannot_be_copied_is_no_error_yet(tmp_path: Path) -> None:
    with SourceAhead(SourceSelection(tmp_path / "missing"), "") as copied:
        assert not copied.is_that_of_earlier_run()
