"""Every field of each request that the server answers: kept, without effect, warned of, refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2, task_command_router_pb2

import modalrun.localmodal
from modalrun.localmodal.server import fields

SOURCE = "\n".join(
    path.read_text()
    for path in Path(modalrun.localmodal.__file__).parent.rglob("*.py")
    if path.name != "fields.py"
)
SERVED = {
    name for call in re.findall(r"@rpc\(([^)]*)\)", SOURCE) for name in re.findall(r'"(\w+)"', call)
}
METHODS = [
    method
    for module in (api_pb2, task_command_router_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name in SERVED
]


def messages(message: Descriptor) -> Iterator[Descriptor]:
    """A message, and those that its kept fields consist of."""
    if not message.full_name.startswith("modal"):
        return
    yield message
    marks = fields.marks(message) or {}
    for field in message.fields:
        inner = field.message_type
        if inner is not None and not marks.get(field.name) and not inner.GetOptions().map_entry:
            yield from messages(inner)


REQUESTS = {fields.name_of(one): one for m in METHODS for one in messages(m.input_type)}


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_every_field_of_the_sdk_has_a_mark(name: str) -> None:
    """A new field, or a new RPC: decide what the server does with it, in `server/fields.py`."""
    marks = fields.marks(REQUESTS[name])
    assert marks is not None, f"server/fields.py has no row for {name}"
    assert set(marks) == {field.name for field in REQUESTS[name].fields}


def test_no_row_is_left_over() -> None:
    known = {
        fields.name_of(inner)
        for module in (api_pb2, task_command_router_pb2)
        for one in module.DESCRIPTOR.message_types_by_name.values()
        for inner in (one, *one.nested_types)
    }
    assert set(fields.FIELDS) <= known
    assert {name for name in fields.FIELDS if name.endswith("Request")} <= set(REQUESTS)


def test_what_is_kept_is_read_somewhere() -> None:
    for name, message in REQUESTS.items():
        for field, mark in (fields.marks(message) or {}).items():
            if not mark:
                names = rf"\b({field}|{message.fields_by_name[field].json_name})\b"
                assert re.search(names, SOURCE), f"{name}.{field} is not kept"


def filled(message: Descriptor, field: Any) -> Any:
    """A message with one field that says something."""
    made = message_factory.GetMessageClass(message)()
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key: Any = "key"
        kind = field.message_type.fields_by_name["value"]
        if kind.message_type is not None:
            getattr(made, field.name)[key].SetInParent()
        else:
            getattr(made, field.name)[key] = kind.default_value
    elif field.message_type is not None:
        value = getattr(made, field.name)
        value = value.add() if field.is_repeated else value
        value.SetInParent()
        if inner := [one for one in field.message_type.fields if one.type == one.TYPE_STRING]:
            part = filled(field.message_type, inner[0])
            value.CopyFrom(part)
    else:
        values = {field.TYPE_STRING: "x", field.TYPE_BYTES: b"x", field.TYPE_BOOL: True}
        value = values.get(field.type, 1)
        if field.is_repeated:
            getattr(made, field.name).append(value)
        else:
            setattr(made, field.name, value)
    return made


@pytest.mark.parametrize("name", ["SandboxCreateV2Request", "ImageGetOrCreateRequest", "Sandbox"])
def test_what_is_not_kept_is_named(name: str) -> None:
    message = REQUESTS[name]
    for field in message.fields:
        made = filled(message, field)
        mark = (fields.marks(message) or {})[field.name]
        value = made.ListFields()[0][1]
        says_something = not hasattr(value, "ByteSize") or value.ByteSize()
        if mark == "!" and says_something:
            with pytest.raises(GRPCError) as caught:
                fields.check("SomeRpc", made)
            assert f"does not have '{field.name}' of SomeRpc" in str(caught.value.message)
        elif mark == "?" and says_something:
            assert f"ignores '{field.name}' of SomeRpc" in fields.check("SomeRpc", made)[0]
        elif mark:
            assert fields.check("SomeRpc", made) == []


def test_inner_and_newer_fields() -> None:
    request = api_pb2.SandboxCreateV2Request(app_id="ap-1")
    assert fields.check("R", request) == []
    request.definition.network_access.allowed_domains.append("example.com")
    with pytest.raises(GRPCError, match=r"'definition\.network_access\.allowed_domains' of R"):
        fields.check("R", request)
    request.definition.Clear()
    request.definition.resources.rdma = True
    assert fields.check("R", request)[0].endswith("ignores 'definition.resources.rdma' of R")
    # Field 999 of a later SDK.
    newer = request.SerializeToString() + b"\xb8\x3e\x01"
    texts = fields.check("R", api_pb2.SandboxCreateV2Request.FromString(newer))
    assert texts[-1].endswith("ignores 'field 999' of R")
