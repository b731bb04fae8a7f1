"""The order: everything that the driver of a `per_step` run has to know, as plain values. Pure.

It is written when the run is submitted and travels with the run sandbox as a file, so that the
driver can start the first steps before it has imported ZenML; and it is kept with the run in
ZenML, so that `modalrun resume` can start another driver. No secret stands in it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from modalrun.run.metadata import PREFIX

ORDER_FOLDER = "/opt/modalrun-order"
ORDER_FILE = f"{ORDER_FOLDER}/order.json"
"""Where the order stands in the run sandbox: outside the code, which belongs to the user."""

VERSION = 1

KEY = f"{PREFIX}order"
"""The key of ZenML's metadata that the order is stored under, with the number of the piece."""

PIECE = 60_000
"""Characters in one piece: ZenML keeps a value in a column of 65,535 bytes (`TEXT` of MySQL,
`zen_stores/schemas/run_metadata_schemas.py`, 0.98.0)."""

T = TypeVar("T")


@dataclass(frozen=True)
class SandboxOrder:
    """A sandbox spec whose image is built. Steps that are alike share one.

    Attributes:
        command: Program and arguments.
        image: Modal's id of the image, "im-...".
        timeout: Seconds until Modal ends it.
        workdir: Absolute path inside the sandbox.
        gpus: As Modal writes them, the preferred one first; empty for a CPU sandbox.
        cpu: CPU cores; None for Modal's default.
        cpu_limit: The most cores that it may use.
        memory: MiB; None for Modal's default.
        memory_limit: The most MiB that it may use.
        cloud: Cloud provider; None lets Modal choose.
        regions: Regions to choose from; empty lets Modal choose.
        env: Plain environment variables.
        secrets: The names of Modal secrets.
        volumes: Modal volumes: name -> absolute path.
    """

    command: tuple[str, ...]
    image: str
    timeout: int
    workdir: str
    gpus: tuple[str, ...] = ()
    cpu: float | None = None
    cpu_limit: float | None = None
    memory: int | None = None
    memory_limit: int | None = None
    cloud: str | None = None
    regions: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StepOrder:
    """One step.

    Attributes:
        name: Its invocation id.
        sandbox: Which of the order's sandboxes it gets, by number.
        upstream: The names of the steps that it waits for.
        done: Whether it was found cached when the run was submitted, and is not run.
        look_up: Whether ZenML's cache has to be asked before it is run.
        retries: How often a failure of the user's is tried again.
        delay: Seconds before the first such retry.
        backoff: What the delay is multiplied with before each further one.
    """

    name: str
    sandbox: int
    upstream: tuple[str, ...] = ()
    done: bool = False
    look_up: bool = False
    retries: int = 0
    delay: float = 0
    backoff: float = 1


@dataclass(frozen=True)
class RunManifest:
    """The whole run.

    Attributes:
        run_id: ZenML's run id.
        pipeline: The pipeline's name.
        target: "modal" or "local".
        app: The name of the Modal app.
        environment: The Modal environment; None for the default one.
        failure_mode: ZenML's `ExecutionMode`, as its value.
        driver: The run sandbox.
        sandboxes: The different sandboxes of the steps.
        steps: The steps, parents before children.
        variables: The names of the environment variables that reach ZenML; their values travel as
            a Modal secret.
        source_root: The folder that the source tree was taken from, on the submitting machine.
        source_hash: The hash of its content.
        source_files: The hash of each of its files by path (`source_changes.kept`); empty where
            there are very many.
        dockerignore: The file that says what of it stays behind, where it is not the usual one.
        max_parallelism: How many steps may run at once; None for no bound.
        creation_rate: How many sandboxes are created in a second.
        infrastructure_retries: How often a step is started again for what is not the user's fault.
        prewarm: "off", "cpu" or "all": which sandboxes may be created early.
        docker: The pipeline's Docker settings; of a dynamic pipeline.
        written: What is written about its sandboxes elsewhere than in the code, by place; of a
            dynamic pipeline, whose steps are not known when it is submitted.
    """

    run_id: str
    pipeline: str
    target: str
    app: str
    failure_mode: str
    driver: SandboxOrder
    sandboxes: tuple[SandboxOrder, ...]
    steps: tuple[StepOrder, ...]
    variables: tuple[str, ...]
    source_root: str
    source_hash: str
    source_files: Mapping[str, str] = field(default_factory=dict)
    environment: str | None = None
    dockerignore: str | None = None
    max_parallelism: int | None = None
    creation_rate: float = 5.0
    infrastructure_retries: int = 2
    prewarm: str = "off"
    docker: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def sandbox_of(self, step: str) -> SandboxOrder:
        """The sandbox that a step gets."""
        return self.sandboxes[next(s.sandbox for s in self.steps if s.name == step)]


def write(order: RunManifest) -> str:
    """An order as JSON; what has its default value is left out."""
    return json.dumps({"version": VERSION, **_plain(order)}, separators=(",", ":"))


def read(text: str) -> RunManifest:
    """The order in a JSON text.

    Raises:
        ValueError: It is damaged, or was written by a newer modalrun.
    """
    try:
        held = json.loads(text)
        version = held.pop("version")
        if version != VERSION:
            raise ValueError(f"the order has version {version}, not {VERSION}")
        held["driver"] = _made(SandboxOrder, held["driver"])
        held["sandboxes"] = tuple(_made(SandboxOrder, one) for one in held["sandboxes"])
        held["steps"] = tuple(_made(StepOrder, one) for one in held["steps"])
        return _made(RunManifest, held)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the order can't be read: {error}") from error


def to_metadata(order: RunManifest) -> dict[str, str]:
    """An order as ZenML's metadata, in as many pieces as it takes."""
    packed = base64.b85encode(zlib.compress(write(order).encode(), 9)).decode("ascii")
    pieces = [packed[start : start + PIECE] for start in range(0, len(packed), PIECE)]
    return {f"{KEY}_{number}": piece for number, piece in enumerate(pieces)}


def from_metadata(metadata: Mapping[str, Any]) -> RunManifest | None:
    """The order in a run's metadata; None where there is none.

    Raises:
        ValueError: It is damaged, or was written by a newer modalrun.
    """
    pieces: list[str] = []
    while (piece := metadata.get(f"{KEY}_{len(pieces)}")) is not None:
        pieces.append(str(piece))
    if not pieces:
        return None
    try:
        return read(zlib.decompress(base64.b85decode("".join(pieces))).decode())
    except zlib.error as error:
        raise ValueError(f"the order can't be read: {error}") from error


def _plain(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, and what is in them."""
    plain: dict[str, Any] = {}
    for one in fields(value):
        held = getattr(value, one.name)
        default = one.default if one.default_factory is MISSING else one.default_factory()
        if held == default:
            continue
        if isinstance(held, tuple) and held and hasattr(held[0], "__dataclass_fields__"):
            held = [_plain(item) for item in held]
        elif hasattr(held, "__dataclass_fields__"):
            held = _plain(held)
        plain[one.name] = held
    return plain


def _made(cls: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of JSON's values, whose lists are its tuples."""
    return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})
