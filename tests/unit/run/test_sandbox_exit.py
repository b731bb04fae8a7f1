"""Look up what the end of a sandbox means."""

from __future__ import annotations

import pytest

from modalrun.localmodal.sandbox.sandboxes import KILLED_WITH_SERVER
from modalrun.run.sandbox_exit import (
    LOST,
    ExitKind,
    ModalStatus,
    SandboxExit,
    ended_by_driver,
    error_class,
    read_exit,
)


@pytest.mark.parametrize(
    ("code", "status", "kind", "infrastructure"),
    [
        (0, ModalStatus.SUCCESS, ExitKind.COMPLETED, False),
        (0, None, ExitKind.COMPLETED, False),
        (1, ModalStatus.FAILURE, ExitKind.FAILED, False),
        (3, ModalStatus.FAILURE, ExitKind.FAILED, False),
        (71, ModalStatus.FAILURE, ExitKind.OUT_OF_MEMORY, False),
        (137, ModalStatus.KERNEL_OOM_KILL, ExitKind.OUT_OF_MEMORY, False),
        (0, ModalStatus.KERNEL_OOM_KILL, ExitKind.OUT_OF_MEMORY, False),
        (137, ModalStatus.MEMORY_MANAGER_EVICTION, ExitKind.EVICTED, True),
        (1, ModalStatus.MEMORY_THRASHING_EVICTION, ExitKind.EVICTED, True),
        (124, ModalStatus.TIMEOUT, ExitKind.TIMED_OUT, False),
        (124, ModalStatus.FAILURE, ExitKind.TIMED_OUT, False),
        (137, ModalStatus.TERMINATED, ExitKind.TERMINATED, True),
        (137, ModalStatus.FAILURE, ExitKind.TERMINATED, True),
        (143, ModalStatus.FAILURE, ExitKind.TERMINATED, True),
        (1, ModalStatus.INTERNAL_FAILURE, ExitKind.PREEMPTED, True),
        (0, ModalStatus.INIT_FAILURE, ExitKind.NOT_STARTED, True),
        (130, ModalStatus.FAILURE, ExitKind.PREEMPTED, True),
        (70, ModalStatus.FAILURE, ExitKind.UNRECORDED, True),
        (72, ModalStatus.FAILURE, ExitKind.UNPREPARED, True),
        # Only ZenML's record can say that the work was done.
        (0, ModalStatus.FAILURE, ExitKind.UNRECORDED, True),
        # A status that a later Modal adds.
        (0, 99, ExitKind.UNRECORDED, True),
        (1, 99, ExitKind.FAILED, False),
    ],
)
def test_exit_kinds(code: int, status: int | None, kind: ExitKind, infrastructure: bool) -> None:
    end = read_exit(code, status)
    assert (end.kind, end.is_infrastructure, end.exit_code) == (kind, infrastructure, code)
    assert end.reason.endswith(".")


@pytest.mark.parametrize("status", [None, *ModalStatus])
def test_a_sandbox_that_was_killed_as_a_whole_could_record_nothing(
    status: ModalStatus | None,
) -> None:
    kept = {
        *(ModalStatus.SUCCESS, ModalStatus.FAILURE),
        *(ModalStatus.TIMEOUT, ModalStatus.INIT_FAILURE),
    }
    # What Modal's exit codes of such ends are is not documented.
    assert read_exit(1, status).killed == (status is not None and status not in kept)
    assert read_exit(137).killed and read_exit(137, ModalStatus.FAILURE).killed


def test_an_eviction_is_the_users_where_the_user_has_limited_the_memory() -> None:
    evicted = read_exit(137, ModalStatus.MEMORY_MANAGER_EVICTION)
    assert evicted.with_memory_limit(None) is evicted
    limited = evicted.with_memory_limit(512)
    assert (limited.kind, limited.is_infrastructure) == (ExitKind.OUT_OF_MEMORY, False)
    assert limited.reason == "The sandbox needed more memory than its limit of 512 MiB."
    killed = read_exit(137, ModalStatus.TERMINATED)
    assert killed.with_memory_limit(512) is killed


def test_modals_text_is_appended() -> None:
    assert read_exit(1, ModalStatus.INIT_FAILURE, "no such file").reason.endswith("no such file")


def test_a_lost_sandbox_is_infrastructure_and_a_refused_one_is_not() -> None:
    assert LOST.is_infrastructure
    assert not SandboxExit(ExitKind.REFUSED, None, "why").is_infrastructure


def test_modals_text_is_left_out_if_it_repeats_the_table() -> None:
    end = read_exit(137, ModalStatus.TERMINATED, "The sandbox was terminated.")
    assert end.reason == "The sandbox was terminated from outside."
    end = read_exit(137, ModalStatus.TERMINATED, "Its app was stopped.")
    assert end.reason == "The sandbox was terminated from outside. Its app was stopped."


def test_a_sandbox_that_died_with_the_local_server_was_not_preempted() -> None:
    end = read_exit(137, ModalStatus.INTERNAL_FAILURE, KILLED_WITH_SERVER)
    assert end == SandboxExit(ExitKind.SERVER_KILLED, 137, KILLED_WITH_SERVER, killed=True)
    said = "The local Modal server was stopped."
    end = read_exit(137, ModalStatus.TERMINATED, said)
    assert end == SandboxExit(ExitKind.SERVER_STOPPED, 137, said, killed=True)


@pytest.mark.parametrize("kind", ExitKind)
def test_the_driver_replaces_the_reason_of_exits_that_it_caused(kind: ExitKind) -> None:
    caused = {ExitKind.TERMINATED, ExitKind.PREEMPTED, ExitKind.EVICTED}
    with_server = {ExitKind.SERVER_KILLED, ExitKind.SERVER_STOPPED}
    gone = {ExitKind.NOT_STARTED, ExitKind.LOST, ExitKind.NOT_BEGUN}
    own = kind not in {*caused, *with_server, *gone}
    end = ended_by_driver(SandboxExit(kind, 137, "Modal's reason."), "Ours.")
    assert end == SandboxExit(kind, 137, "Modal's reason." if own else "Ours.")


@pytest.mark.parametrize(
    ("code", "cli_exit_code"),
    [(0, 0), (1, 1), (2, 1), (70, 1), (139, 1), (-1, 1), (124, 6), (130, 7), (137, 7), (143, 7)],
)
def test_a_run_sandbox_implies_the_exit_code_of_the_cli(code: int, cli_exit_code: int) -> None:
    error = read_exit(code).kind.error
    assert (error.exit_code if error else 0) == cli_exit_code
    if error:
        assert error_class(cli_exit_code) is error
        assert issubclass(error, RuntimeError), "scripts catch it, as of ZenML's orchestrators"
