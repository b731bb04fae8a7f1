"""Define the types of values that others may have written: events and metadata. Pure.

A run's output and its metadata in ZenML are written by the run, and by whoever else can write
there. A class whose fields have these types, and `CHECKED` as its `__pydantic_config__`, is checked
by pydantic where it is read. No value is converted.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter

T = TypeVar("T")

CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)
"""No other fields, and finite numbers only."""

LONGEST_TEXT = 2_000
"""Characters of a reason; the record in ZenML has all of them."""

SandboxId = Annotated[str, Field(pattern=r"^sb-[A-Za-z0-9-]{1,60}$")]
"""Modal's id of a sandbox."""

SandboxIds = Annotated[
    str, Field(pattern=r"^sb-[A-Za-z0-9-]{1,60}(,sb-[A-Za-z0-9-]{1,60})*$", max_length=65_536)
]
"""Modal's ids of sandboxes, separated by commas."""

RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
"""ZenML's id of a run."""

AppId = Annotated[str, Field(pattern=r"^ap-[A-Za-z0-9-]{1,60}$")]
"""Modal's id of an app."""

Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]
"""The hash of a Git commit."""

ModalName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
"""The name of an app or an environment."""

StepName = Annotated[str, Field(pattern=r"^\P{Cc}+$", max_length=255)]
"""A step's invocation id, of which ZenML stores 255 characters."""

Text = Annotated[str, Field(pattern=r"^\P{Cc}*$", max_length=LONGEST_TEXT)]
"""A sentence."""

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][ -~]*$", max_length=1_000)]
"""A GPU as Modal writes it, a list of regions, a workspace."""

Link = Annotated[str, Field(pattern=r"^https://modal\.com/[A-Za-z0-9/_-]+$", max_length=200)]
"""A page on Modal's dashboard."""

Moment = Annotated[float, Field(strict=True, ge=0, le=1e11)]
"""Seconds since the epoch, in a year that can be shown."""

Moments = Annotated[list[Moment], Field(min_length=1, max_length=1_000)]
"""Such times, one at least."""

Seconds = Annotated[float, Field(strict=True, ge=-1e9, le=1e9)]
"""A time between two moments; a clock may have been set back between them."""

Number = Annotated[int, Field(strict=True, ge=0, le=10**9)]
"""A count of anything, or MiB."""

Cores = Annotated[float, Field(strict=True, ge=0, le=1e6)]
"""CPU cores."""

ExitCode = Annotated[int, Field(strict=True, ge=-(2**31), lt=2**32)]
"""The exit code of a sandbox."""

Flag = Annotated[bool, Field(strict=True)]
"""Yes or no."""


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """Return what reads and writes values of a class; it is made once, which takes milliseconds."""
    # mypy takes no class for hashable.
    return _made(kind)  # type: ignore[arg-type]


@functools.cache
def _made(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
