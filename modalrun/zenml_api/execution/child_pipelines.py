"""Label the steps of child pipelines, which may be named like their parent's."""

from __future__ import annotations

import functools
import os
from uuid import UUID

from zenml.client import Client
from zenml.execution.pipeline.dynamic.runner import CHILD_PIPELINE_INVOCATION_ID_PREFIX

from modalrun.run.contract import RUN_ID


@functools.cache
def child_of(run_id: str) -> str:
    """Return what precedes the names of a run's steps in their labels.

    Args:
        run_id: The sandbox's run, or the run of a child pipeline.

    Returns:
        "inner/" for the pipeline `inner`, "inner_2/" where it is called again, "outer/inner/" for a
        child's child; "" for the sandbox's run.
    """
    if run_id == os.environ[RUN_ID]:
        return ""
    run = Client().zen_store.get_run(UUID(run_id))
    assert run.parent_run is not None
    assert run.child_key is not None
    name = run.child_key.removeprefix(CHILD_PIPELINE_INVOCATION_ID_PREFIX)
    return f"{child_of(str(run.parent_run.id))}{name}/"
