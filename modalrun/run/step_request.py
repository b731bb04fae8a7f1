"""Define what the code of a dynamic pipeline may ask of Modal. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from modalrun.run.values import CHECKED, Number, StepName, Text


@dataclass(frozen=True)
class StepRequest:
    """Ask for a sandbox for an isolated step; user code can ask too.

    Attributes:
        name: Its invocation id.
        step_run: The id of its record, which ZenML has made.
        run_id: The run it belongs to: that of the manifest, or of a child pipeline.
        attempt: The number of the attempt, from 1.
        settings: ZenML's settings of the step, with the pipeline's merged in, as plain values.
        template: The planned step that this one is made from, if there is one.
        docker: The digest of its Docker settings.
        child: What precedes its name in its label: "inner/" in the child pipeline `inner`.
    """

    __pydantic_config__ = CHECKED

    name: StepName
    step_run: UUID
    run_id: UUID
    attempt: Number
    settings: Mapping[str, Any]
    docker: str
    template: StepName | None = None
    child: Text = ""
