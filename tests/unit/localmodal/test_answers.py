"""The answers that the local server remembers."""

from __future__ import annotations

import asyncio

import pytest
from modal_proto import api_pb2 as api

from modalrun.localmodal.server.answers import Answers


def test_a_repeated_call_creates_nothing() -> None:
    created = []

    async def create() -> api.DictPopResponse:
        created.append(len(created))
        await asyncio.sleep(0)
        if len(created) == 1:
            raise ValueError("the first one fails")
        return api.DictPopResponse(value=b"%d" % len(created))

    async def call() -> None:
        answers = Answers[api.DictPopResponse]()
        failed = await asyncio.gather(
            *(answers.once("a", create) for _ in range(2)), return_exceptions=True
        )
        assert [str(error) for error in failed] == ["the first one fails"] * 2
        with pytest.raises(asyncio.TimeoutError):
            # The client is gone.
            await asyncio.wait_for(answers.once("a", create), 0)
        assert (await answers.once("a", create)).value == b"2"
        assert (await answers.once("a", create)).value == b"2"
        assert (await answers.once("b", create)).value == b"3"

    asyncio.run(call())


def test_large_answers_do_not_fill_the_memory() -> None:
    answers = Answers[api.DictPopResponse]()
    for number in range(10):
        answers.keep(number, api.DictPopResponse(value=bytes(50_000_000)))
    assert [number for number in range(10) if answers.find(number)] == [8, 9]
    for number in range(10, 10_010):
        answers.keep(number, api.DictPopResponse())
    assert len([number for number in range(10_010) if answers.find(number)]) == 4096
