"""`modal.Queue` and `modal.Dict` on the server's database."""

from __future__ import annotations

import json
import queue as standard
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import modal
import pytest
from grpclib import GRPCError
from modal.exception import AlreadyExistsError, InvalidError, NotFoundError
from modal_proto import api_pb2

from modalrun.localmodal.server_info import ServerInfo
from modalrun.localmodal.storage.paths import StateDir

from .support import Sdk, kill_server
from .test_commands import MODAL
from .test_refusals import call


def set_clock(sdk: Sdk, ahead: float) -> None:
    StateDir(sdk.info.state_dir).faults_file.write_text(json.dumps({"clock": ahead}))


def test_a_queue(sdk: Sdk) -> None:
    queue = modal.Queue.from_name("jobs", create_if_missing=True, client=sdk.client)
    queue.put(1)
    queue.put_many([2, {"three": 3}])
    queue.put("other", partition="p")
    assert (queue.len(), queue.len(partition="p"), queue.len(total=True)) == (3, 1, 4)
    assert list(queue.iterate()) == [1, 2, {"three": 3}]
    assert (queue.get(), queue.get_many(5), queue.get(block=False)) == (1, [2, {"three": 3}], None)
    assert queue.get(partition="p") == "other"
    with pytest.raises(standard.Empty):
        queue.get(timeout=0.1)
    assert queue.get_many(2, block=False, partition="new") == []
    queue.put_many([1, 2])
    queue.put(3, partition="p")
    queue.clear()
    assert (queue.len(), queue.len(total=True)) == (0, 1)
    queue.clear(all=True)
    assert queue.len(total=True) == 0


def test_waiting_for_a_queue(sdk: Sdk) -> None:
    queue = modal.Queue.from_name("jobs", create_if_missing=True, client=sdk.client).hydrate()
    with ThreadPoolExecutor(10) as pool:
        workers = [pool.submit(queue.get, timeout=20) for _ in range(8)]
        other = pool.submit(queue.get, partition="p", timeout=20)
        looking = pool.submit(lambda: next(queue.iterate(partition="q", item_poll_timeout=20)))
        queue.put_many(list(range(8)))
        assert sorted(worker.result() for worker in workers) == list(range(8))
        queue.put("p", partition="p")
        queue.put("q", partition="q")
        assert (other.result(), looking.result()) == ("p", "q")
        waiting = pool.submit(queue.get)
        queue.put("x", partition="p")
        modal.Queue.objects.delete("jobs", client=sdk.client)
        with pytest.raises(NotFoundError):
            waiting.result()


def test_lost_answers(sdk: Sdk) -> None:
    queue = modal.Queue.from_name("jobs", create_if_missing=True, client=sdk.client).hydrate()
    rules = [{"rpc": rpc, "action": "lose_answer"} for rpc in ("QueuePut", "QueueGet")]
    StateDir(sdk.info.state_dir).faults_file.write_text(json.dumps({"rules": rules}))
    queue.put_many([1, 2])
    assert (queue.get(), queue.get(), queue.len()) == (1, 2, 0)


def test_a_dict(sdk: Sdk) -> None:
    box = modal.Dict.from_name("box", create_if_missing=True, client=sdk.client)
    box["a"] = 1
    box.update({("t", 2): [1, 2], "b": b"x" * 3_000_000})
    assert (box["a"], box[("t", 2)], len(box["b"]), box.len()) == (1, [1, 2], 3_000_000, 3)
    assert ("a" in box, box.contains("no"), box.get("no", 7)) == (True, False, 7)
    assert box.put("a", 2, skip_if_exists=True) is False
    assert box.put("new", 2, skip_if_exists=True) is True
    assert box.put("a", 3) is True
    assert set(box.keys()) == {"a", ("t", 2), "b", "new"}
    assert box.pop("b") == b"x" * 3_000_000
    del box["new"]
    assert dict(box.items()) == {"a": 3, ("t", 2): [1, 2]}
    assert sorted(map(str, box.values())) == ["3", "[1, 2]"]
    assert box.pop("no", "default") == "default"
    for missing in (lambda: box["no"], lambda: box.pop("no")):
        with pytest.raises(KeyError):
            missing()
    box.clear()
    assert (box.len(), list(box.keys())) == (0, [])

    box.update(dict.fromkeys(range(120), 0))
    for number, value in box.items():
        box[number] = value + 1
    assert dict(box.items()) == dict.fromkeys(range(120), 1)


@pytest.mark.parametrize(
    "kind", [modal.Queue, pytest.param(modal.Dict, marks=pytest.mark.exhaustive)]
)
def test_names(sdk: Sdk, kind: Any) -> None:
    modal.Environment.objects.create("other", client=sdk.client)
    options = {"client": sdk.client}
    for name in ("one", "two"):
        kind.objects.create(name, **options)
    kind.from_name("one", environment_name="other", create_if_missing=True, **options).hydrate()
    with pytest.raises(AlreadyExistsError, match="'one' already exists"):
        kind.objects.create("one", **options)
    kind.objects.create("one", allow_existing=True, **options)
    with kind.ephemeral(**options) as passing:
        passing.put("key", *(["value"] if kind is modal.Dict else []))
        again = kind.from_id(passing.object_id, **options)
        assert (again.len(), again.info().name) == (1, None)
        assert [one.name for one in kind.objects.list(**options)] == ["two", "one"]
    assert [one.name for one in kind.objects.list(environment_name="other", **options)] == ["one"]
    kind.objects.delete("one", **options)
    with pytest.raises(NotFoundError):
        kind.from_name("one", **options).hydrate()
    kind.from_name("one", environment_name="other", **options).hydrate()
    with pytest.raises(NotFoundError):
        kind.from_id("no", **options).hydrate()


@pytest.mark.exhaustive
def test_what_expires(sdk: Sdk) -> None:
    queue = modal.Queue.from_name("jobs", create_if_missing=True, client=sdk.client)
    box = modal.Dict.from_name("box", create_if_missing=True, client=sdk.client)
    queue.put(1)
    queue.put(2, partition="short", partition_ttl=3600)
    box.update({"read": 1, "forgotten": 2})
    set_clock(sdk, 2 * 3600)
    assert (queue.len(total=True), queue.get(block=False, partition="short")) == (1, None)
    queue.put(3)
    set_clock(sdk, 25 * 3600)
    # "24 hours after the last put".
    assert queue.get_many(5) == [1, 3]
    set_clock(sdk, 6 * 86400)
    assert box["read"] == 1
    set_clock(sdk, 8 * 86400)
    assert (dict(box.items()), box.len()) == ({"read": 1}, 1)
    assert box.get("forgotten") is None


@pytest.mark.exhaustive
def test_a_killed_server(sdk: Sdk, start: Callable[..., ServerInfo], connect: Any) -> None:
    queue = modal.Queue.from_name("jobs", create_if_missing=True, client=sdk.client)
    queue.put_many(["a", "b"])
    modal.Dict.from_name("box", create_if_missing=True, client=sdk.client)["key"] = "value"
    assert queue.get() == "a"
    kill_server(sdk.info)
    client = connect(start()).client
    assert modal.Queue.from_name("jobs", client=client).get_many(5) == ["b"]
    assert modal.Dict.from_name("box", client=client)["key"] == "value"


def test_limits(sdk: Sdk) -> None:
    queue = modal.Queue.from_name("jobs", create_if_missing=True, client=sdk.client)
    queue.put_many([0] * 4999)
    queue.put(0)
    with pytest.raises(standard.Full):
        queue.put(0, block=False)
    with pytest.raises(standard.Full):
        queue.put(0, timeout=0.1)
    queue.put(0, block=False, partition="other")
    with pytest.raises(InvalidError):
        queue.put(b"x" * (2**20 + 1))
    for ttl in (-1, 86401):
        with pytest.raises(InvalidError, match="partition_ttl"):
            queue.put(0, partition_ttl=ttl)
    hostile = {
        "QueueGet": [{"n_values": -5, "partition_key": b"a", "timeout": float("nan")}],
        "QueuePut": [{"partition_key": b"x" * 65}, {"queue_id": "../x"}, {"queue_id": "vo-\0"}],
        "QueueNextItems": [{"last_entry_id": text} for text in ("x", "-1", "9" * 30, "²")],
    }
    for rpc, requests in hostile.items():
        for fields in requests:
            options = {"queue_id": queue.object_id, **fields}
            request = getattr(api_pb2, f"{rpc}Request")(**options)
            if rpc == "QueueGet":
                assert not call(sdk.info, rpc, request).values
                continue
            with pytest.raises(GRPCError):
                call(sdk.info, rpc, request)
    began = time.monotonic()
    request = api_pb2.QueueGetRequest(queue_id=queue.object_id, n_values=2**31 - 1)
    assert len(call(sdk.info, "QueueGet", request).values) == 5000
    assert time.monotonic() - began < 10


@pytest.mark.exhaustive
def test_the_command_line(sdk: Sdk) -> None:
    modal.Queue.from_name("q", create_if_missing=True, client=sdk.client).put_many([11, 12])
    modal.Dict.from_name("d", create_if_missing=True, client=sdk.client)["key"] = "value"
    commands = [
        ["queue", "create", "new"], ["queue", "list", "--json"], ["queue", "peek", "q", "2"],
        ["queue", "len", "q", "--total"], ["queue", "clear", "q", "--yes"], ["queue", "len", "q"],
        ["queue", "delete", "q", "--yes"], ["dict", "create", "new"], ["dict", "get", "d", "key"],
        ["dict", "items", "d", "--json"], ["dict", "clear", "d", "--yes"],
        ["dict", "delete", "d", "--yes"], ["dict", "list", "--json"],
    ]  # fmt: skip
    said = json.loads(sdk.script(MODAL, json.dumps(commands)))
    listed = {row["name"]: row for row in json.loads(said[1])}
    assert (listed["q"]["partitions"], listed["q"]["total_size"]) == (1, 2)
    assert (said[2].split(), said[3].strip(), said[5].strip()) == (["11", "12"], "2", "0")
    assert "value" in said[8]
    assert "value" in said[9]
    assert [row["name"] for row in json.loads(said[12])] == ["new"]
