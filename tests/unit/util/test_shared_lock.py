"""A lock that many hold at a time, or one alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from modalrun.util.shared_lock import SharedLock

SECONDS = 10.0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as made:
        yield made


def test_many_share_it(pool: ThreadPoolExecutor) -> None:
    lock, together = SharedLock(), threading.Barrier(2)

    def hold() -> None:
        with lock.held(alone=False):
            together.wait(SECONDS)

    for done in [pool.submit(hold) for _ in range(2)]:
        done.result(SECONDS)


@pytest.mark.parametrize("alone", [True, False])
def test_one_alone_shares_it_with_nobody(pool: ThreadPoolExecutor, alone: bool) -> None:
    lock, order, begun = SharedLock(), list[str](), threading.Event()

    def other() -> None:
        begun.set()
        with lock.held(alone=alone):
            order.append("other")

    with lock.held(alone=True):
        waiting = pool.submit(other)
        assert begun.wait(SECONDS)
        order.append("first")
    waiting.result(SECONDS)

    assert order == ["first", "other"]


def test_its_holder_may_take_it_again() -> None:
    lock = SharedLock()

    with lock.held(alone=True), lock.held(alone=False), lock.held(alone=True):
        pass
    with lock.held(alone=True):
        pass


def test_it_is_free_after_an_error() -> None:
    lock = SharedLock()

    with pytest.raises(KeyboardInterrupt), lock.held(alone=True):
        raise KeyboardInterrupt
    with lock.held(alone=True):
        pass
