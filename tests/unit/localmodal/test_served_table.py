"""The table of docs/local-server.md against the RPCs that the server has."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from modal_proto import api_pb2, task_command_router_pb2

from modalrun.localmodal.server import fields

from .test_request_fields import SERVED

DOCS = Path(__file__).parents[3] / "docs" / "local-server.md"
RPCS = {
    method.name
    for module in (api_pb2, task_command_router_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def table() -> list[list[str]]:
    text = DOCS.read_text("utf-8")
    rows = text.partition("| subject | served |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def patterns(column: int) -> list[str]:
    names = [name for row in table() for name in re.findall(r"`([A-Z]\w+\*?)`", row[column])]
    return [name for name in names if any(fnmatchcase(rpc, name) for rpc in RPCS)]


def test_each_rpc_is_where_it_belongs() -> None:
    served, refused = patterns(1), patterns(2)
    assert not set(served) & set(refused)
    wrong = []
    for rpc in sorted(RPCS):
        fitting = [name for name in (*served, *refused) if fnmatchcase(rpc, name)]
        assert fitting, f"docs/local-server.md says nothing of {rpc}"
        if (max(fitting, key=len) in served) != (rpc in SERVED):
            wrong.append(rpc)
    assert wrong == [], "docs/local-server.md says the opposite"


def test_no_pattern_is_left_over() -> None:
    for column, rpcs in ((1, SERVED), (2, RPCS - SERVED)):
        for name in patterns(column):
            assert any(fnmatchcase(rpc, name) for rpc in rpcs), f"no RPC is {name}"


def test_ignored_options_are_named() -> None:
    text = "\n".join(map(" ".join, table()))
    row = fields.FIELDS["Sandbox"].split()
    # What the SDK's user does not set by these names.
    unnamed = {"cloud_provider", "runtime_debug", "worker_id", "runsc_runtime_version"}
    unnamed |= {"preload_path_prefixes", "experimental_options_v2"}
    for name in (word[1:] for word in row if word.startswith("?")):
        assert f"`{name}`" in text or name in unnamed, name
