"""The readings of a sandbox's processes, and what they say of a step."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from modalrun.run import contract, usage_log
from modalrun.run.events import EventScanner, Used
from modalrun.run.usage import StepUsage, UsagePoint
from modalrun.run.usage_log import (
    Measured,
    Reading,
    add,
    add_death,
    event,
    of_dead,
    of_killed,
    peak,
    read,
)

MIB = 1024 * 1024
ID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "usage"
    path.touch()
    monkeypatch.setenv(contract.USAGE_FILE, str(path))
    return str(path)


def begun(at: float, pid: int = 7, cpu: float = 1.0, memory: int = 100) -> Reading:
    return Reading("begin", at, pid, cpu, memory * MIB, memory * MIB, ID)


def sample(at: float, cpu: float, memory: int, pid: int = 7, *gpu: int) -> Reading:
    return Reading("sample", at, pid, cpu, memory * MIB, 0, "", *gpu)


def died(log: str, *readings: Reading) -> StepUsage | None:
    for one in readings:
        add(log, one)
    return of_dead(ID, {contract.USAGE_FILE: log})


def test_a_step_whose_whole_sandbox_was_killed() -> None:
    samples = [sample(at, at - 98, memory) for at, memory in ((102.0, 300), (106.0, 800))]
    output = b"".join(b"\x1e%s\n" % event(begun(100.0), one) for one in samples)
    found = EventScanner().feed(output)
    told = [reading for one in found if isinstance(one, Used) for reading in one.readings]
    used = of_killed(ID, told)
    assert used is not None and used.killed
    assert (used.peak_memory, used.seconds, used.cpu_seconds) == (800, 6.0, 7.0)
    assert [point.memory for point in used.points] == [300, 800]
    assert of_killed("another", told) is None
    assert of_killed(ID, told[:1]) is None


def test_a_step_whose_process_died(log: str) -> None:
    death = Reading("death", 105.0, 7, 6.0, 0, 900 * MIB)
    used = died(log, begun(100.0), sample(102.0, 3.0, 300), sample(104.0, 5.0, 800), death)
    assert used == StepUsage(
        began=100.0,
        seconds=5.0,
        cpu_seconds=5.0,
        peak_cores=1.0,
        peak_memory=900,
        mean_memory=600,
        killed=True,
        points=(
            UsagePoint(2.0, 1.0, 300),
            UsagePoint(4.0, 1.0, 800),
            UsagePoint(5.0, 1.0, 800),
        ),
        pid=7,
    )


def test_samples_of_other_steps_and_of_before_do_not_count(log: str) -> None:
    other = sample(102.0, 90.0, 9_000, 8)
    used = died(log, sample(99.0, 0.9, 5_000), begun(100.0), other, sample(102.0, 2.0, 200))
    assert used is not None
    assert (used.cpu_seconds, used.peak_memory, len(used.points)) == (1.0, 200, 1)


def test_the_time_of_children_that_are_gone_is_not_taken_back(log: str) -> None:
    used = died(log, begun(100.0), sample(102.0, 9.0, 100), sample(104.0, 2.0, 100))
    assert used is not None
    assert used.cpu_seconds == 8.0
    assert [point.cores for point in used.points] == [4.0, 0.0]


def test_readings_close_to_each_other_make_no_peak(log: str) -> None:
    used = died(
        log, begun(100.0), sample(100.1, 1.2, 500), sample(102.0, 2.0, 100), sample(102.1, 2.3, 90)
    )
    assert used is not None
    assert used.points == (UsagePoint(2.0, 0.5, 500),)
    assert (used.peak_cores, used.cpu_seconds, used.peak_memory) == (0.5, 1.3, 500)


def test_gpu(log: str) -> None:
    size = 40_960 * MIB
    used = died(
        log,
        begun(100.0),
        sample(102.0, 2.0, 100, 7, 10, 900 * MIB, size),
        sample(104.0, 3.0, 100, 7, 31, 700 * MIB, size),
    )
    assert used is not None
    assert (used.gpu, used.peak_gpu_memory, used.gpu_memory) == (20, 900, 40_960)
    assert [(point.gpu, point.gpu_memory) for point in used.points] == [(10, 900), (31, 700)]


def test_a_step_that_has_ended_is_not_dead(log: str) -> None:
    end = begun(104.0)._replace(kind="end")
    assert died(log, begun(100.0), sample(102.0, 2.0, 100), end) is None
    # It is executed again.
    assert died(log, begun(110.0), sample(112.0, 2.0, 100)) is not None


def test_without_a_reading_nothing_is_known(log: str) -> None:
    assert died(log) is None
    assert died(log, begun(100.0)) is None
    assert of_dead(ID, {}) is None


def test_lines_of_user_code_are_ignored(log: str) -> None:
    with Path(log).open("ab") as file:
        file.write(b'\xff\n{}\n[]\n["sample"]\n["sample", 1, 7, "9", 1]\n[[[\n')
        file.write(b'["sample", 1e400, 7, 1, 1]\n["sample", 5, 7, NaN, 1]\n')
        # Bytes are whole.
        file.write(b'["sample", 5, 7, 1, 1.5]\n["death", 5, 7, 1, 1, 1.5]\n')
        file.write(b'["sample", 5, 7, 1, 1, 0, "", 1, 1, 1.5]\n["begin"')
    assert read(log)[0] == []
    assert read("/nowhere") == ([], 0)


def test_a_file_that_was_replaced_by_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "usage"
    os.mkfifo(path)
    assert read(str(path)) == ([], 0)
    assert add(str(path), begun(1.0)) == 0


def test_reading_on(log: str) -> None:
    place = add(log, begun(100.0))
    add(log, sample(102.0, 2.0, 100))
    later, end = read(log, place)
    assert [one.kind for one in later] == ["sample"]
    assert read(log, end) == ([], end)


def test_this_process(log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_log, "SHORTEST", 0.0)
    measured = Measured(ID)
    sum(range(3_000_000))
    used = measured.end()
    assert used is not None
    assert not used.killed
    assert used.cpu_seconds > 0
    # The system counts in steps.
    assert 10 < used.peak_memory <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + 4
    assert of_dead(ID, os.environ) is None


def test_a_short_step_is_not_worth_a_request(log: str) -> None:
    assert Measured(ID).end() is None
    assert [one.kind for one in read(log)[0]] == ["begin", "end"]


def test_nothing_is_measured_outside_of_a_sandbox(
    log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(contract.USAGE_FILE)
    monkeypatch.setattr(usage_log, "SHORTEST", 0.0)
    assert Measured(ID).end() is None


def test_the_peak_of_a_dead_process(log: str) -> None:
    environment = {contract.USAGE_FILE: log}
    assert peak(7, environment) is None
    for one in (sample(100.0, 1.0, 300), sample(102.0, 1.0, 200)):
        add(log, one)
    add(log, Reading("death", 103.0, 7, 1.0, 0, 250 * MIB))
    assert peak(7, environment) == (300, 3.0)
    add_death(environment, 8, resource.getrusage(resource.RUSAGE_SELF))
    highest = peak(8, environment)
    assert highest is not None
    assert highest[1] is None


def test_a_long_step_has_fewer_points(log: str) -> None:
    busy = [
        sample(100 + 2.0 * n, 1 + n // 2 * 2, 100 + n, 7, n % 2 * 100, n * MIB, 9_000 * MIB)
        for n in range(1, 306)
    ]
    used = died(log, begun(100.0), *busy)
    assert used is not None
    assert len(used.points) == 101
    assert used.points[-1].at == 606.0
    assert used.points[-1].memory == 403
    assert (used.points[2].cores, used.points[2].gpu, used.points[2].gpu_memory) == (0.33, 67, 9)
    assert (used.peak_cores, used.peak_memory, used.gpu) == (1.0, 405, 50)
