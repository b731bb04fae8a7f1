"""Advise what the steps of a pipeline should ask for, by what they have used in recent runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from math import ceil
from statistics import fmean

from modalrun.errors import NotFoundError
from modalrun.observe import status
from modalrun.plan.pricing import per_second
from modalrun.run.failure_hints import ran_out_of_memory
from modalrun.run.metadata import RunMetadata, StepMetadata
from modalrun.run.records import LATEST, RunRecord, StepRecord
from modalrun.run.run_plan import Mode
from modalrun.run.sandbox_spec import DEFAULT_CORES, DEFAULT_MEMORY_MIB, Resources
from modalrun.run.usage import StepUsage
from modalrun.run.usage_log import SHORTEST
from modalrun.zenml_api.gateway import ZENML, ZenMLGateway

MARGIN = 1.25
"""What a suggestion has more than the peak."""

IDLE_GPU = 10
"""Percent below which a GPU does too little for its price."""

_BUSY = 0.9
"""The share of a core from which a thread keeps it busy: it can't use more of another one."""

_CLOCKS = 0.02
"""The most by which CPU time and time differ, so that a core seems to be more than busy."""

_SLOWEST = 5.0
"""Seconds that the record of a step may be longer than what is measured of it."""

_TAKEN = frozenset({"cached", "skipped"})

LOST = "ended with its sandbox"
RUNNING = "still running"
UNSTORED = "figures not stored"
INCOMPLETE = "never completed"
"""Why a step was not measured, or not to its end, unless it was short."""

_CORES = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0)
_MEMORY = tuple(
    sorted(size << power for power in range(14) for size in (128, 192) if size << power >= 256)
)
"""Cores and MiB that people write, the smallest first."""


@dataclass(frozen=True)
class Quantity:
    """What a sandbox asks for of one quantity, cores or MiB, and what it uses.

    Attributes:
        asked: The last request.
        peak: The most that was used in any run.
        mean: What was used in the mean.
        suggestion: What to ask for; None for a step that shares its sandbox.
    """

    asked: float
    peak: float
    mean: float
    suggestion: float | None = None

    @property
    def used(self) -> int:
        """The peak in percent of the request."""
        return round(100 * self.peak / self.asked)

    @property
    def raised(self) -> bool:
        """Whether to ask for more."""
        return self.suggestion is not None and self.suggestion > self.asked

    @property
    def changed(self) -> bool:
        """Whether to ask for more or less."""
        return self.suggestion not in (None, self.asked)


@dataclass(frozen=True)
class StepAdvice:
    """What one step, or the sandbox of all steps, should ask for.

    Attributes:
        step: Its name; None for the sandbox that runs all steps in `pipeline` mode.
        runs: In how many runs it was measured. In none if it only ran out of memory: then what it
            asked for is the peak of its memory, and nothing else is known.
        cpu, memory: Cores and MiB.
        gpu: The GPU that it asks for; None without one.
        gpu_busy: How busy that is in the mean, in percent; None if not known.
        saved: What the suggestion saves in a run in USD at Modal's list prices, below 0 for what it
            costs more; None without a suggestion.
        kept: Whether nothing is lowered, since not all that its sandbox has run was measured.
        ran_out: Whether a sandbox needed more memory than it had asked for.
    """

    step: str | None
    runs: int
    cpu: Quantity
    memory: Quantity
    gpu: str | None = None
    gpu_busy: int | None = None
    saved: Decimal | None = None
    kept: bool = False
    ran_out: bool = False

    @property
    def gpu_is_idle(self) -> bool:
        """Whether its GPU does too little."""
        return self.gpu is not None and self.gpu_busy is not None and self.gpu_busy < IDLE_GPU


@dataclass(frozen=True)
class Advice:
    """What the sandboxes of a pipeline should ask for.

    Attributes:
        pipeline: Its name.
        mode: The mode of its runs.
        runs: The runs that were looked at, newest first.
        steps: The steps that were measured; in `pipeline` mode the sandbox of all steps first.
        unmeasured: The steps that were too short for it in all runs.
        missing: The steps that were not measured in a run for another reason, with that.
        dynamic: Whether the pipeline's function creates the steps, so that a run spec can't name
            all of them; as far as asked for.
    """

    pipeline: str
    mode: Mode
    runs: tuple[RunRecord, ...]
    steps: tuple[StepAdvice, ...]
    unmeasured: tuple[str, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    dynamic: bool = False


def read_advice(argument: str, limit: int, *, zenml: ZenMLGateway = ZENML) -> Advice:
    """Advise for the last runs of a pipeline, or for one run.

    Args:
        argument: A pipeline's name; or a run as `status.resolve` takes it. "latest" means the last
            runs of the pipeline that ran last.
        limit: How many runs of a pipeline.

    Raises:
        NotFoundError: There is no such pipeline or run, or modalrun has not started it.
        AuthenticationError, ConnectionLostError: ZenML's server refuses or is not there.
    """
    found = [] if argument == LATEST else zenml.newest_runs(limit=limit, pipeline=argument)
    if not found:
        try:
            run = status.resolve(argument, zenml=zenml)
        except NotFoundError as error:
            text = f"modalrun has run no pipeline '{argument}'. {error.problem}"
            raise NotFoundError(text, hint=error.hint) from error
        of_pipeline = argument == LATEST
        found = zenml.newest_runs(limit=limit, pipeline=run.pipeline) if of_pipeline else [run]
    runs = [run for run in found if run.metadata is not None]
    if not runs:
        last = f"the last {len(found)} runs of " if len(found) > 1 else ""
        raise NotFoundError(
            f"There is nothing to advise by: no sandbox is known of {last}'{argument}'.",
            hint="A run whose steps are all cached has none; '--runs' looks at more of a pipeline."
            " 'modalrun list' shows the runs that modalrun has started.",
        )
    advice = advise(runs, zenml.step_attempts(runs))
    # What a run spec says of all steps holds for any pipeline.
    per_step = advice.mode == "per_step"
    return replace(advice, dynamic=per_step and zenml.step_names(runs[0].id) is None)


def advise(runs: Sequence[RunRecord], attempts: Mapping[str, Sequence[StepRecord]]) -> Advice:
    """Advise by recorded runs of one pipeline, newest first; by those in the newest one's mode.

    Args:
        runs: They have metadata.
        attempts: All attempts at their steps, by run id.
    """
    newest = runs[0].metadata
    assert newest is not None
    runs = [run for run in runs if run.metadata and run.metadata.mode == newest.mode]
    by_step: dict[str, list[tuple[str, StepRecord]]] = {}
    for run in runs:
        for attempt in attempts[run.id]:
            by_step.setdefault(attempt.name, []).append((run.id, attempt))

    def usage(found: Iterable[tuple[str, StepRecord]]) -> list[list[StepUsage]]:
        by_run: dict[str, list[StepUsage]] = {}
        for run_id, attempt in found:
            if attempt.usage is not None:
                by_run.setdefault(run_id, []).append(attempt.usage)
        return list(by_run.values())

    shared = newest.mode == "pipeline"
    of_run = {run.id: run.metadata for run in runs}
    missing = {
        name: why for name, found in by_step.items() for _, one in found if (why := _missing(one))
    }
    for name, found in by_step.items():
        with_figures = [one for _, one in found if one.usage is not None]
        # What is left of its work may need more.
        if with_figures and not any(one.successful for one in with_figures):
            missing[name] = INCOMPLETE

    def lacking(found: Iterable[tuple[str, StepRecord]]) -> int:
        """Return twice the memory that sandboxes ran out of; 0 if none did."""
        asked = [
            of_run[run_id] if shared else one.metadata
            for run_id, one in found
            if (one.failure is None or one.failure.kind is None)
            and ran_out_of_memory(one.reason, newest.mode)
        ]
        return max((2 * (one.memory or DEFAULT_MEMORY_MIB) for one in asked if one), default=0)

    advice = []
    for name, found in by_step.items():
        # An inline step of a dynamic pipeline has no sandbox of its own.
        own = None if shared else next((a.metadata for _, a in found if a.metadata), None)
        used, needed = usage(found), lacking(found)
        if used or (own and needed):
            of_runs = sum(_seconds(attempt) for _, attempt in found) / len(dict(found))
            watched = sum(one.seconds for of_run in used for one in of_run)
            one = _advice(name, used, watched, own or newest)
            kept = name in missing
            advice.append(_with_savings(one, own, of_runs, kept, needed) if own else one)
    everything = [one for found in by_step.values() for one in found]
    needed = lacking(everything)
    if shared and (advice or needed):
        used = [_by_process(one) for one in usage(everything)]
        measured = sum(one.seconds for of_run in used for one in of_run)
        # A run that goes on has taken what was measured of it, at least.
        ended = [seconds for run in runs if (seconds := _seconds(run))]
        seconds = fmean(ended or [measured / max(len(used), 1)])
        whole = _advice(None, used, seconds * len(used), newest)
        advice.insert(0, _with_savings(whole, newest, seconds, bool(missing), needed))
    known = {one.step for one in advice} | missing.keys()
    unmeasured = (
        name
        for name, found in by_step.items()
        if name not in known
        and any(one.start and one.end and one.status not in _TAKEN for _, one in found)
    )
    return Advice(
        runs[0].pipeline, newest.mode, tuple(runs), tuple(advice), tuple(unmeasured), missing
    )


def _missing(attempt: StepRecord) -> str | None:
    """Return why an attempt has no figures; None if it has, was short or has not run."""
    if attempt.usage is not None or attempt.start is None or attempt.status in _TAKEN:
        return None
    if attempt.end is None:
        return RUNNING
    facts = attempt.metadata
    waited = facts.begun - attempt.start.timestamp() if facts and facts.begun else 0.0
    seconds = _seconds(attempt) - max(0.0, waited)
    if attempt.successful or (attempt.failure and attempt.failure.kind):
        # Its own process has recorded the end.
        return UNSTORED if seconds > SHORTEST + _SLOWEST else None
    return LOST if seconds > SHORTEST else None


def _by_process(used: Sequence[StepUsage]) -> list[StepUsage]:
    """Join steps that ran at the same time in one process: each has the figures of all."""
    joined: list[StepUsage] = []
    for one in sorted(used, key=lambda one: (one.pid or 0, one.began)):
        last = joined[-1] if joined and one.pid is not None else None
        if last is None or one.pid != last.pid or one.began >= last.began + last.seconds:
            joined.append(one)
            continue
        seconds = max(last.began + last.seconds, one.began + one.seconds) - last.began
        share = seconds / max(last.seconds + one.seconds, 0.01)
        memory = last.mean_memory * last.seconds + one.mean_memory * one.seconds
        joined[-1] = replace(
            last,
            seconds=seconds,
            cpu_seconds=(last.cpu_seconds + one.cpu_seconds) * share,
            peak_cores=max(last.peak_cores, one.peak_cores),
            peak_memory=max(last.peak_memory, one.peak_memory),
            mean_memory=round(memory * share / max(seconds, 0.01)),
        )
    return joined


def cores_for(peak: float, asked: float) -> float:
    """Return how many cores to ask for by the most that were used.

    A process that keeps whole cores busy gets these: each of its threads has one.
    """
    whole = round(peak)
    busy = _BUSY * whole <= peak <= whole
    return _suggestion(whole if busy else peak * MARGIN, asked, _CORES)


def memory_for(peak: float, asked: float) -> int:
    """Return how many MiB to ask for by the most that were used."""
    return int(_suggestion(peak * MARGIN, asked, _MEMORY))


def _suggestion(needed: float, asked: float, written: Sequence[float]) -> float:
    """Return the next number that people write; what is asked for if that is enough and less."""
    found = next((value for value in written if value >= needed), float(ceil(needed)))
    return asked if needed <= asked < found else found


def _advice(
    step: str | None,
    used: Sequence[Sequence[StepUsage]],
    seconds: float,
    asked: RunMetadata | StepMetadata,
) -> StepAdvice:
    """Compare what is asked for with what was used in each run, in so many seconds together."""
    flat = [one for of_run in used for one in of_run]
    gpus = [one for one in flat if one.gpu is not None]
    gpu_seconds = sum(one.seconds for one in gpus)
    cores = max((_highest((u, u.peak_cores) for u in of_run) for of_run in used), default=0.0)
    memory = asked.memory or DEFAULT_MEMORY_MIB
    if cores - _CLOCKS <= round(cores) <= cores:
        cores = round(cores)
    return StepAdvice(
        step,
        len(used),
        cpu=Quantity(
            asked.cpu or DEFAULT_CORES,
            round(cores, 2),
            round(sum(one.cpu_seconds for one in flat) / max(seconds, 0.01), 2),
        ),
        memory=Quantity(
            memory,
            max((_highest((u, u.peak_memory) for u in of_run) for of_run in used), default=memory),
            round(sum(one.mean_memory * one.seconds for one in flat) / max(seconds, 0.01)),
        ),
        gpu=asked.gpu,
        gpu_busy=round(sum((one.gpu or 0) * one.seconds for one in gpus) / max(gpu_seconds, 0.01))
        if gpus
        else None,
    )


def _with_savings(
    advice: StepAdvice, asked: RunMetadata | StepMetadata, seconds: float, kept: bool, needed: int
) -> StepAdvice:
    """Add suggestions, and what they save in a run of so many seconds.

    Args:
        kept: Whether to lower nothing.
        needed: How many MiB to suggest at least.
    """
    cpu, memory = advice.cpu, advice.memory
    least = (cpu.asked, memory.asked) if kept or not advice.runs else (0, 0)
    cpu = replace(cpu, suggestion=max(cores_for(cpu.peak, cpu.asked), least[0]))
    mib = max(memory_for(memory.peak, memory.asked), needed, least[1])
    memory = replace(memory, suggestion=mib)
    regions = asked.regions.split(",") if asked.regions else []

    def rate(cores: float | None, mib: float | None) -> Decimal:
        # The GPU stays, and so does its price.
        return per_second(Resources((), cores or 0, int(mib or 0)), regions) or Decimal(0)

    less = rate(cpu.asked, memory.asked) - rate(cpu.suggestion, memory.suggestion)
    saved = less * Decimal(str(round(seconds, 3)))
    return replace(advice, cpu=cpu, memory=memory, saved=saved, kept=kept, ran_out=needed > 0)


def _highest(used: Iterable[tuple[StepUsage, float]]) -> float:
    """Return the highest sum of what was used at the same time."""
    found = list(used)
    return max(
        sum(much for one, much in found if one.began <= at.began < one.began + one.seconds)
        for at, _ in found
    )


def _seconds(record: RunRecord | StepRecord) -> float:
    """Return how long a run or a step has taken, so far as it has ended."""
    if record.start is None or record.end is None:
        return 0.0
    return max(0.0, (record.end - record.start).total_seconds())
