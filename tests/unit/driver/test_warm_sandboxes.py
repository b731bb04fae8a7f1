"""Keep step sandboxes warm: who gets a worker, how long it waits, and what its death means."""

from __future__ import annotations

import asyncio
import json
from typing import cast

import pytest

from modalrun.driver.graph.lease import Lease
from modalrun.errors import ConflictError
from modalrun.modal_api.sandboxes.capacity import GivenUp
from modalrun.run import contract, events
from modalrun.run.events import Idle, OrderEnd
from modalrun.run.sandbox_exit import NOT_BEGUN, SILENT, ExitKind
from modalrun.run.step_order import kind_of
from modalrun.run.tags import TAG_ORDER, TAG_SERVED
from tests.unit.driver import coordinator_bench
from tests.unit.driver.warm_bench import KILLED, Bench, Box, Boxes, play, spec_of, until


def idle_events(out: str) -> list[str]:
    found = [events.read(line) for line in out.split("\n")]
    return [event.step for event in found if isinstance(event, Idle)]


def test_without_it_each_step_gets_the_sandbox_of_its_own() -> None:
    async def scene() -> None:
        bench = Bench(0)
        for step in ("a", "b"):
            box = await bench.pool.create(spec_of(step), asyncio.Event())
            assert cast("Box", box).spec == spec_of(step)

    play(scene)


def test_the_next_step_of_the_kind_gets_the_sandbox(capfd: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        bench = Bench()
        first = await bench.get("a")
        (box,) = bench.boxes.created
        assert box.spec.command == ("python", "-P", "-m", contract.WORKER_MODULE)
        # The time limit of the step is in its order; the sandbox lasts as long as the run.
        assert (box.spec.timeout, box.orders[0].env[contract.TIMEOUT]) == (900, "60")
        assert contract.STEP not in box.spec.env
        await box.end_step()
        assert (await first.ended()).kind is ExitKind.COMPLETED

        second = await bench.get("b", attempt=3)
        assert (second.id, second.step, second.attempt) == (first.id, "b", 3)
        assert box.tags[TAG_SERVED] == "2"
        assert box.tags[TAG_ORDER] == box.orders[1].secret != box.orders[0].secret
        metadata = json.loads(box.orders[1].env[contract.STEP_METADATA])
        assert metadata["cpu"] == 1 and 0 < metadata["idle"] < 5
        await box.end_step(1)
        assert (await second.ended()).kind is ExitKind.FAILED
        assert len(bench.boxes.created) == 1
        await bench.pool.close()
        assert box.terminated

    play(scene)
    assert idle_events(capfd.readouterr().out) == ["a", "b"]


def test_other_secrets_are_another_kind() -> None:
    async def scene() -> None:
        bench = Bench()
        await bench.get("a", secrets=("one",))
        await bench.boxes.created[0].end_step()
        await bench.get("b", secrets=("two",))
        assert len(bench.boxes.created) == 2
        await bench.get("c", secrets=("one",))
        assert len(bench.boxes.created) == 2

    play(scene)


def test_it_waits_no_longer_than_agreed() -> None:
    async def scene() -> None:
        bench = Bench(1)
        await bench.get("a")
        (box,) = bench.boxes.created
        await box.end_step()
        while not box.terminated:
            await asyncio.sleep(0.05)
        await bench.get("b")
        assert len(bench.boxes.created) == 2

    play(scene)


def test_it_waits_for_no_step_that_is_not_expected() -> None:
    async def scene() -> None:
        bench = Bench()
        expected = {kind_of(spec_of("another"))}
        bench.pool.expected = lambda: expected
        await bench.get("a")
        (box,) = bench.boxes.created
        await box.end_step()
        bench.pool.look()
        await asyncio.sleep(0.01)
        assert not box.terminated
        expected.clear()
        bench.pool.look()
        await bench.pool.close()
        assert box.terminated

    play(scene)


@pytest.mark.parametrize("answers", [True, False])
def test_a_free_sandbox_goes_to_the_step_that_waits_for_capacity(answers: bool) -> None:
    async def scene() -> None:
        bench = Bench()
        bench.boxes.answers = answers
        first = await bench.get("a")
        bench.boxes.full = True
        waiting = asyncio.create_task(bench.get("b"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await bench.boxes.created[0].end_step()
        assert (await waiting).id == first.id
        assert len(bench.boxes.created) == 1
        assert bench.boxes.awaited == ([] if answers else ["b-1"]), "it must not run the step, too"

    play(scene)


def test_a_free_sandbox_is_used_if_a_new_one_fails_at_that_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene() -> None:
        bench = Bench()
        first = await bench.get("a")

        async def create(*_: object, **__: object) -> Box:
            await bench.boxes.created[0].end_step()
            raise ConflictError("It can't start.")

        monkeypatch.setattr(bench.boxes, "create", create)
        assert (await bench.get("b")).id == first.id

    play(scene)


def test_a_sandbox_that_waits_makes_room_for_another_kind() -> None:
    async def scene() -> None:
        bench = Bench()
        await bench.get("a", secrets=("one",))
        (box,) = bench.boxes.created
        await box.end_step()
        bench.boxes.full = True
        waiting = asyncio.create_task(bench.get("b"))
        while not box.terminated:
            await asyncio.sleep(0.01)
        bench.boxes.full = False
        await waiting

    play(scene)


def test_a_creation_ends_when_the_run_does() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.boxes.full = True
        given_up = asyncio.Event()
        waiting = asyncio.create_task(bench.pool.create(spec_of("a"), given_up))
        await asyncio.sleep(0.05)
        given_up.set()
        with pytest.raises(GivenUp):
            await waiting

    play(scene)


@pytest.mark.parametrize("how", ["before", "refuses", "meanwhile"])
def test_a_sandbox_that_dies_while_it_waits_costs_nothing(how: str) -> None:
    async def scene() -> None:
        bench = Bench()
        await bench.get("a")
        (box,) = bench.boxes.created
        await box.end_step()
        if how == "before":
            await box.die()
        box.refuses = how == "refuses"
        box.begins = False
        coming = asyncio.create_task(bench.get("b"))
        if how == "meanwhile":
            await asyncio.sleep(0.01)
            await box.die()
        assert (await coming).id == "sb-b-1"

    play(scene)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_step_that_may_have_begun_is_not_begun_in_another_sandbox(
    ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modalrun.driver.graph.warm_sandboxes.BEGIN_SECONDS", 0.05)

    async def scene() -> None:
        bench = Bench()
        await bench.get("a")
        (box,) = bench.boxes.created
        await box.end_step()
        box.begins = False
        box.unreachable = not ordered
        lease = await bench.get("b")
        if ordered:
            assert (lease.id, await lease.ended()) == (box.id, NOT_BEGUN)
        else:
            assert lease.id == "sb-b-1"
        await bench.pool.close()
        assert box.terminated
        assert len(bench.boxes.created) == (1 if ordered else 2)

    play(scene)


def test_a_step_that_may_have_begun_is_waited_for_as_long_as_it_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modalrun.driver.graph.warm_sandboxes.BEGIN_SECONDS", 0.05)

    async def scene() -> None:
        bench = Bench()
        await bench.get("a")
        (box,) = bench.boxes.created
        await box.end_step()
        box.begins, box.outlives_termination = False, True
        lease = await bench.get("b", seconds=0.1)
        assert (lease.id, await lease.ended()) == (box.id, SILENT)
        assert box.terminated

    play(scene)


def test_a_step_that_has_begun_in_a_sandbox_which_dies_at_once_is_lost_with_it() -> None:
    async def scene() -> None:
        bench = Bench()
        await bench.get("a")
        (box,) = bench.boxes.created
        await box.end_step()
        box.begins, box.begins_unheard = False, True
        coming = asyncio.create_task(bench.get("b"))
        await asyncio.sleep(0.01)
        await box.die()
        lease = await coming
        assert (lease.id, await lease.ended()) == (box.id, KILLED)

    play(scene)


def test_a_step_that_an_unanswered_order_has_not_begun_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("modalrun.driver.graph.warm_sandboxes.BEGIN_SECONDS", 0.05)

    async def scene() -> None:
        boxes = Boxes()
        bench = coordinator_bench.Bench(
            {"a": [], "b": ["a"]}, boxes=boxes, keep_warm=30, infrastructure_retries=0
        )
        run = bench.begin()
        await until(lambda: boxes.created)
        first = boxes.created[0]
        first.begins = False
        await first.end_step()
        await until(lambda: len(boxes.created) > 1)
        assert first.terminated
        await boxes.created[1].end_step()
        await run
        assert bench.coordinator.succeeded

    play(scene)
    assert "It is started again, without using up a retry." in capfd.readouterr().out


def test_a_sandbox_that_dies_in_a_step_is_its_end() -> None:
    async def scene() -> None:
        bench = Bench()
        lease = await bench.get("a")
        await bench.boxes.created[0].die()
        assert (await lease.ended()) == KILLED

    play(scene)


def test_a_report_without_the_secret_is_none() -> None:
    async def scene() -> None:
        bench = Bench()
        lease = await bench.get("a")
        (box,) = bench.boxes.created
        for secret in ("0" * 32, "ä"):
            box.tell(OrderEnd(secret, 0))
        await asyncio.sleep(0.01)
        ending = asyncio.create_task(lease.ended())
        await asyncio.sleep(0.01)
        assert not ending.done()
        await box.end_step()
        assert (await ending).kind is ExitKind.COMPLETED

    play(scene)


@pytest.mark.parametrize("code", [contract.EXIT_KILLED, contract.EXIT_UNRECORDED])
def test_an_end_from_outside_ends_the_sandbox(code: int) -> None:
    async def scene() -> None:
        bench = Bench()
        lease = await bench.get("a")
        (box,) = bench.boxes.created
        await box.end_step(code)
        assert (await lease.ended()).is_infrastructure
        assert box.terminated

    play(scene)


def test_a_step_is_ended_by_the_end_of_its_sandbox() -> None:
    async def scene() -> None:
        bench = Bench()
        lease = await bench.get("a")
        await lease.terminate()
        assert (await lease.ended()) == KILLED

    play(scene)


def test_another_driver_adopts_a_step_and_leaves_its_sandbox_to_it() -> None:
    async def scene() -> None:
        earlier = Bench()
        await earlier.get("a")
        (box,) = earlier.boxes.created
        bench = Bench()
        bench.boxes.left.append(box)
        (adopted,) = await bench.pool.running()
        assert isinstance(adopted, Lease)
        assert (adopted.id, adopted.step, adopted.attempt) == (box.id, "a", 1)
        await asyncio.sleep(0.01)
        await box.end_step()
        assert (await adopted.ended()).kind is ExitKind.COMPLETED
        assert box.terminated

    play(scene)


def test_of_its_own_sandboxes_a_driver_finds_the_steps_that_run() -> None:
    async def scene() -> None:
        bench = Bench()
        lease = await bench.get("a")
        assert await bench.pool.running() == [lease]
        await bench.boxes.created[0].end_step()
        assert await bench.pool.running() == []

    play(scene)


def test_an_order_that_the_earlier_driver_could_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalrun.driver.graph.warm_sandboxes.BEGIN_SECONDS", 0.05)

    async def scene() -> None:
        bench = Bench()
        box = Box(spec_of("a"))
        box.tags = {**box.tags, TAG_ORDER: "0", TAG_SERVED: "2"}
        bench.boxes.left.append(box)
        (adopted,) = await bench.pool.running()
        assert (await adopted.ended()) == NOT_BEGUN
        assert box.terminated

    play(scene)
