"""JSON messages between two processes."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

from modalrun.driver.processes.messages import Call, MessageSocket


def test_a_long_message_is_sent_whole_after_a_look_for_others() -> None:
    ours, theirs = map(MessageSocket, socket.socketpair())
    with contextlib.closing(theirs), ThreadPoolExecutor() as pool:
        with contextlib.closing(ours):
            assert ours.received() == []
            found = pool.submit(theirs.receive)
            ours.send(Call(1, "x" * 4_000_000))
        assert len(found.result()) > 4_000_000
