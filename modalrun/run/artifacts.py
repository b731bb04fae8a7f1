"""Define the artifacts of a run, with what ZenML has stored to show of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Visualization:
    """What ZenML's dashboard shows of an artifact.

    Attributes:
        kind: ZenML's type; "note" if it can't be shown.
        content: The file, as bytes if it is an image; of a note, why it can't be shown.
    """

    kind: Literal["csv", "html", "image", "markdown", "json", "note"]
    content: str | bytes = field(repr=False)


@dataclass(frozen=True)
class Artifact:
    """An artifact that a step of a run has made.

    Attributes:
        step: The step's invocation id.
        output: The name of the step's output.
        name: Its name in ZenML.
        version: Its version there.
        kind: The class of the value: "DataFrame".
        uri: Where it is stored.
        visualizations: Only if they were asked for.
    """

    step: str
    output: str
    name: str
    version: str
    kind: str
    uri: str
    visualizations: tuple[Visualization, ...] = ()
