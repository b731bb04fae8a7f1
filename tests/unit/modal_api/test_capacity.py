"""The search for a GPU type with a place: limits, what is told, and how it is given up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from modal.exception import NotFoundError

from modalrun.errors import (
    CapacityError,
    ConflictError,
    ConnectionLostError,
    UnknownOutcomeError,
)
from modalrun.modal_api.sandboxes import capacity
from modalrun.modal_api.sandboxes.capacity import CapacitySearch, GivenUp
from modalrun.run.capacity_wait import CapacityWait

REFUSED = CapacityError("Modal has no room for this: quota")
LIMITED = CapacityError("Too fast.", rate_limited=True)


class Modal:
    """Modal with a queue: what becomes of the requests for each type, and what was asked.

    Attributes:
        places: Type -> an error that is raised at once; "queued" for ever; else there is a place.
        answers: Whether it has a sandbox by the name, of a request that is queued.
    """

    def __init__(self, places: dict[str | None, Any], *, answers: bool = True) -> None:
        self.places = places
        self.answers = answers
        self.asked: list[str | None] = []
        self.prepared = 0
        self.cancelled: list[str | None] = []
        self.queued: str | None = None
        self.on_request: Callable[[str | None], None] = lambda _: None

    async def prepare(self) -> None:
        self.prepared += 1

    async def create(self, gpu: str | None) -> str:
        self.asked.append(gpu)
        self.on_request(gpu)
        found = self.places.get(gpu)
        if isinstance(found, list):
            found = found.pop(0) if found else None
        if isinstance(found, Exception):
            raise found
        if found == "queued":
            self.queued = gpu
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.append(gpu)
                self.queued = None
        return f"sandbox with {gpu}"

    async def find(self) -> Any:
        if self.queued is None or not self.answers:
            raise NotFoundError("no such sandbox")
        return SimpleNamespace()


class Search:
    """A search on a fake Modal, with short times."""

    def __init__(
        self, modal: Modal, *gpus: str, gpu_wait: float | None = None, longest: float = 0.2
    ) -> None:
        self.waits: list[CapacityWait | None] = []
        self.said: list[str] = []
        self.given_up = asyncio.Event()
        self.search = CapacitySearch(
            modal.prepare,
            modal.create,
            modal.find,
            self.given_up,
            gpus=gpus,
            gpu_wait=gpu_wait,
            longest=longest,
            on_wait=self.waits.append,
            say=lambda text: self.said.append(re.sub(r"waited \d+ s", "waited N s", text)),
        )

    @property
    def told(self) -> list[str | None]:
        return [wait and wait.text() for wait in self.waits]


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "NOTICE_SECONDS", 0.02)
    monkeypatch.setattr(capacity, "GPU_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(capacity, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(capacity, "LONGEST_PAUSE", 0.05)


def test_a_place_at_once_is_not_worth_a_word() -> None:
    async def scenario() -> None:
        modal = Modal({})
        search = Search(modal, "H100", "A100")
        assert await search.search.once() == "sandbox with H100"
        assert (search.waits, search.said, modal.prepared) == ([], [], 1)

    asyncio.run(scenario())


def test_each_type_has_its_time_and_the_next_is_told() -> None:
    async def scenario() -> None:
        modal = Modal({"H100": "queued", "A100": REFUSED})
        search = Search(modal, "H100", "A100", "T4")
        assert await search.search.once() == "sandbox with T4"
        assert modal.cancelled == ["H100"]
        assert search.told == ["waiting for H100, next: A100", None]
        assert search.said == [
            "Modal has no H100 now (waited N s); asking for A100 instead",
            "Modal has no A100 now; asking for T4 instead",
        ]

    asyncio.run(scenario())


def test_the_last_type_has_longer_unless_its_time_is_set() -> None:
    async def seconds(**options: Any) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(CapacityError, match=r"place for the sandbox: H100 \(waited \d+ s\)\."):
            await Search(Modal({"H100": "queued"}), "H100", **options).search.once()
        return loop.time() - began

    assert asyncio.run(seconds(longest=0.3)) >= 0.3
    assert asyncio.run(seconds(gpu_wait=0.05, longest=60)) < 30


def test_all_types_are_named_when_none_has_a_place() -> None:
    modal = Modal({"H100": "queued", "A100": REFUSED})
    tried = r"H100 \(waited \d+ s\), A100 \(refused: Modal has no room for this: quota\)"
    with pytest.raises(CapacityError, match=tried) as caught:
        asyncio.run(Search(modal, "H100", "A100").search.once())
    assert "'--wait-for-capacity 2h'" in str(caught.value.hint)


def test_no_shorter_wait_is_advised_than_the_one_that_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def longer(**options: Any) -> str:
        search = Search(Modal({"H100": "queued"}), "H100", **options)
        wait = asyncio.create_task(search.search.within(600))
        while not search.said:
            await asyncio.sleep(0.01)
        search.given_up.set()
        with pytest.raises(GivenUp):
            await wait
        return search.said[0].rpartition("=")[2]

    assert asyncio.run(longer(gpu_wait=0.05)) == "10m'"
    wait = asyncio.wait
    shortened = {"timeout": 0.01}
    monkeypatch.setattr(asyncio, "wait", lambda tasks, **how: wait(tasks, **how | shortened))
    assert asyncio.run(longer(gpu_wait=1800)) == "3600s'"


def test_a_rate_limit_is_no_lack_of_a_type() -> None:
    modal = Modal({"H100": LIMITED})
    with pytest.raises(CapacityError) as caught:
        asyncio.run(Search(modal, "H100", "A100").search.once())
    assert caught.value is LIMITED
    assert modal.asked == ["H100"]


def test_types_are_asked_for_again_until_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "NOTICE_SECONDS", 0.0)

    async def scenario() -> None:
        modal = Modal({"H100": [REFUSED, REFUSED], "A100": [REFUSED, LIMITED]})
        search = Search(modal, "H100", "A100")
        assert await search.search.within(60) == "sandbox with H100"
        assert modal.asked == ["H100", "A100", "H100", "A100", "H100"]
        assert search.told == ["waiting for H100 or A100", None]
        assert any("; asking again" in text for text in search.said)

    asyncio.run(scenario())
    with pytest.raises(CapacityError, match="quota"):
        asyncio.run(Search(Modal({None: REFUSED})).search.within(0.1))
    modal = Modal({"H100": "queued"})
    with pytest.raises(CapacityError, match="waited") as caught:
        asyncio.run(Search(modal, "H100", longest=60).search.within(0.1))
    assert "wait longer." in str(caught.value.hint)
    assert modal.cancelled == ["H100"]


def test_only_the_first_turn_of_each_type_is_told() -> None:
    async def scenario() -> None:
        modal = Modal({"H100": "queued", "A100": "queued"})
        search = Search(modal, "H100", "A100", gpu_wait=0.05)

        def give_up(_: str | None) -> None:
            if len(modal.asked) == 5:
                search.given_up.set()

        modal.on_request = give_up
        with pytest.raises(GivenUp):
            await search.search.within(600)
        assert modal.asked == ["H100", "A100", "H100", "A100", "H100"]
        assert search.told[:2] == ["waiting for H100, next: A100", None]
        assert search.told[2:] == ["waiting for A100", None, "waiting for H100 or A100", None]
        first, hint = search.said
        assert first == "Modal has no H100 now (waited N s); asking for A100 instead"
        # A script has no '--set'.
        assert hint.endswith(
            " 'gpu_wait' in the orchestrator's settings, or '--set"
            " settings.orchestrator.gpu_wait=10m'"
        )

    asyncio.run(scenario())


@pytest.mark.parametrize("answers", [True, False])
def test_a_wait_that_is_given_up_ends_at_once(answers: bool) -> None:
    async def scenario() -> None:
        modal = Modal({"H100": "queued"}, answers=answers)
        search = Search(modal, "H100", longest=60)
        wait = asyncio.create_task(search.search.once())
        while not search.waits:
            await asyncio.sleep(0.01)
        search.given_up.set()
        # Without an answer a sandbox may come later.
        with pytest.raises(cast("Any", GivenUp if answers else UnknownOutcomeError)):
            await asyncio.wait_for(wait, 5)
        assert modal.cancelled == ["H100"]
        assert search.told[-1] is None
        with pytest.raises(GivenUp):
            await search.search.once()
        assert modal.asked == ["H100"]

    asyncio.run(scenario())


def test_a_sandbox_that_comes_while_it_is_cancelled_is_terminated() -> None:
    class Late(Modal):
        runs = True

        async def find(self) -> Any:
            if not self.runs:
                raise NotFoundError("no such sandbox")
            return SimpleNamespace(terminate=SimpleNamespace(aio=self.terminate))

        async def terminate(self) -> None:
            self.runs = False

    async def scenario() -> None:
        modal = Late({"H100": "queued"})
        search = Search(modal, "H100", "A100")
        assert await search.search.once() == "sandbox with A100"
        assert not modal.runs

    asyncio.run(scenario())


def test_a_pause_that_is_given_up_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "NOTICE_SECONDS", 0.0)
    monkeypatch.setattr(capacity, "FIRST_PAUSE", 60)

    async def scenario() -> None:
        search = Search(Modal({None: REFUSED}))
        wait = asyncio.create_task(search.search.within(600))
        while not search.waits:
            await asyncio.sleep(0.01)
        assert search.told == ["waiting for capacity"]
        search.given_up.set()
        with pytest.raises(GivenUp):
            await asyncio.wait_for(wait, 5)

    asyncio.run(scenario())


def test_the_sdk_gives_up_before_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "SDK_PATIENCE", 0.0)
    modal = Modal({"H100": [REFUSED, REFUSED]})
    assert asyncio.run(Search(modal, "H100", longest=60).search.once()) == "sandbox with H100"
    assert modal.asked == ["H100"] * 3


def test_other_errors_are_raised() -> None:
    modal = Modal({"H100": ConnectionLostError("gone")})
    with pytest.raises(ConnectionLostError, match="gone"):
        asyncio.run(Search(modal, "H100", "A100").search.once())


def test_a_sandbox_that_could_not_start_does_not_begin_the_time_again() -> None:
    async def scenario() -> None:
        modal = Modal({"H100": [ConflictError("It did not start.")], "A100": "queued"})
        search = Search(modal, "H100", "A100").search
        with pytest.raises(ConflictError):
            await search.within(0.05)
        await asyncio.sleep(0.06)
        with pytest.raises(CapacityError, match=r"place for the sandbox: H100 \(refused: It did"):
            await search.within(0.05)
        assert modal.asked == ["H100"]

    asyncio.run(scenario())
