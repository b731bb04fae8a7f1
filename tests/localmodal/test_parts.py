"""Parts that can be tested without a server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import marshal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalrun.localmodal.idleness import Idleness
from modalrun.localmodal.sandbox import execs, keeper, rootfs
from modalrun.localmodal.sandbox.nursery import Nursery
from modalrun.localmodal.sandbox.process import Command, Exit, SandboxProcess
from modalrun.localmodal.sandbox.recipe import File, Recipe
from modalrun.localmodal.server.auth import Guard
from modalrun.localmodal.storage.ids import Clock, new_id, new_sandbox_ids
from modalrun.localmodal.storage.logstore import STDERR, STDOUT, SandboxLog, whole_characters


@given(st.text(), st.integers(0, 50))
def test_whole_characters_never_splits_one(text: str, cut: int) -> None:
    data = text.encode()
    size = whole_characters(data[:cut])
    data[:size].decode()
    assert len(data[:cut]) - size < 4


@given(st.binary())
def test_whole_characters_holds_back_little(data: bytes) -> None:
    assert 0 <= len(data) - whole_characters(data) <= 3


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(min_size=1)), max_size=20),
    st.booleans(),
)
def test_a_log_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, bytes]], crash: bool
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = SandboxLog(folder, Clock(), writable=True)
    for descriptor, data in writes:
        log.append(descriptor, data)
    if crash:
        log.close()
        log = SandboxLog(folder, Clock(), writable=True)
        log.recover()
    else:
        log.finish()
    written = {d: b"".join(data for fd, data in writes if fd == d) for d in (STDOUT, STDERR)}
    spans = list(log.spans())
    for descriptor, whole in written.items():
        assert log.read(descriptor, 0, len(whole) + 1) == whole
        mine = [span for span in spans if span.descriptor == descriptor]
        assert b"".join(log.read(descriptor, s.start, s.end - s.start) for s in mine) == whole
        lines = [line for span in mine for line in log.lines(span)]
        assert len(lines) == sum(span.entries for span in mine)
        assert "".join(lines).count("\n") == whole.count(b"\n")
        assert all("\n" not in line[:-1] for line in lines)
    times = [span.time_ns for span in spans]
    assert times == sorted(set(times))
    middle = times[len(times) // 2] if times else 0
    assert log.first_after(middle) == sum(time <= middle for time in times)
    log.close()


def test_a_log_beyond_its_limit_still_gets_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODALRUN_LOCAL_LOG_LIMIT", "0.1")
    log = SandboxLog(tmp_path, Clock(), writable=True)
    events = [b'\x1e{"modalrun": "order", "exit_code": %d}\n' % number for number in range(3)]
    log.append(STDERR, b"unfinished")
    log.append(STDOUT, b"much\n" * 100_000 + events[0])
    log.append(STDOUT, b"more\n" + events[1][:20])
    log.append(STDOUT, events[1][20:] + b"the end")
    log.append(STDERR, events[2])

    stored = [line.encode() for span in log.spans() for line in log.lines(span)]

    assert [line for line in stored if line.startswith(b"\x1e")] == events
    log.finish()
    assert log.read(STDOUT, log.size(STDOUT) - 12, 12) == b"more\nthe end"
    assert log.read(STDERR, 0, 1_000) == b"unfinished\n" + events[2]
    log.close()


def test_ids_have_the_sdks_shapes() -> None:
    from modal.sandbox._common import SandboxVersion, _get_sandbox_version
    from modal.sandbox._task_command_router_client import _is_v2_task_id

    for _ in range(200):
        sandbox, task = new_sandbox_ids(1)
        assert _get_sandbox_version(sandbox) is SandboxVersion.V1 and not _is_v2_task_id(task)
        sandbox, task = new_sandbox_ids(2)
        assert _get_sandbox_version(sandbox) is SandboxVersion.V2 and _is_v2_task_id(task)
    assert len(new_id("ap")) == 25


def test_the_clock_never_repeats() -> None:
    clock = Clock()
    seconds = [clock.now() for _ in range(1000)]
    assert seconds == sorted(set(seconds))


def test_the_clock_continues_when_the_machines_is_set_back() -> None:
    ahead = 3600.0
    clock = Clock(ahead=lambda: ahead)
    first = clock.now()
    ahead = 0.0
    time.sleep(0.01)
    second = clock.now()
    assert first + 0.005 < second < first + 60, "at its pace, so that times tell lines apart"
    # The next server does not begin before.
    assert second < Clock(second).now() < second + 60


def test_signed_tokens() -> None:
    guard = Guard()
    token = guard.sign("ta-1")
    assert guard.signed_subject(token) == "ta-1"
    assert guard.signed_subject(token[:-2]) is None
    assert Guard().signed_subject(token) is None
    for nonsense in ("", ".", "a.b", "é.é.é"):
        assert guard.signed_subject(nonsense) is None


def test_nothing_leaves_the_root(tmp_path: Path) -> None:
    assert rootfs.inside(tmp_path, "/a/./b") == tmp_path / "a" / "b"
    assert rootfs.inside(tmp_path, "a") == tmp_path / "a"
    with pytest.raises(ValueError, match="leaves"):
        rootfs.inside(tmp_path, "/a/../../b")


def test_recipe_lines() -> None:
    recipe = Recipe()
    recipe.add(
        [
            "FROM base",
            "ENV A=1 B='two words'",
            "ENV OLD some text",
            "WORKDIR /app",
            "WORKDIR sub",
            "COPY --from=x /y /z",
            "COPY . /",
            'CMD ["sleep", "5"]',
            "RUN echo ENV X=1",
        ],
        [File("/a/b", Path("stored"), 0o755)],
    )
    assert recipe.env == [("A", "1"), ("B", "two words"), ("OLD", "some text")]
    assert recipe.workdir == "/app/sub"
    assert recipe.files == [File("/a/b", Path("stored"), 0o755)]
    assert recipe.notes == ["COPY --from=x /y /z (nothing is built)"]
    assert recipe.command == ["sleep", "5"]
    assert recipe.entrypoint is None


@pytest.mark.parametrize("instruction", ["ENTRYPOINT", "CMD"])
@pytest.mark.parametrize(
    ("written", "words"),
    [
        ('["echo", "a,b"]', ["echo", "a,b"]),
        ('["echo","a, b"]', ["echo", "a, b"]),
        (r'["sh", "-c", "exec \"$@\" [x]", "--"]', ["sh", "-c", 'exec "$@" [x]', "--"]),
        ('[ "a",\\\n# why\n  "b" ]', ["a", "b"]),
        ("[]", []),
        ("exec echo a, b", ["/bin/sh", "-c", "exec echo a, b"]),
        ("[ -f x ] && y", ["/bin/sh", "-c", "[ -f x ] && y"]),
        ('["a", 1]', ["/bin/sh", "-c", '["a", 1]']),
    ],
)
def test_entrypoint_and_command(instruction: str, written: str, words: list[str]) -> None:
    lines = ["FROM base", "ENV A=1 \\", "    B=2", *f"{instruction}\t{written}".split("\n")]
    recipe = Recipe()
    recipe.add(lines)
    found = recipe.entrypoint if instruction == "ENTRYPOINT" else recipe.command
    assert found == words
    assert recipe.env == [("A", "1"), ("B", "2")]


def test_a_command_for_the_keeper() -> None:
    command = {"argv": ["a", "", "b c"], "env": {"K": "v=\n"}, "cwd": "/x", "open_files": 7}
    packed = keeper.pack(**command)
    assert int(packed[:8]) == len(packed) - 8
    assert marshal.loads(packed[8:]) == command
    with pytest.raises(ValueError, match="NUL"):
        keeper.pack(**command | {"env": {"K": "\0"}})


class Exhausted(Nursery):
    """A nursery on a machine without a free descriptor."""

    def fork(self, kind: bytes, descriptors: Sequence[int]) -> None:
        raise OSError(errno.EMFILE, "too many")


def test_a_start_that_fails_leaves_no_descriptors() -> None:
    async def start() -> None:
        before = psutil.Process().num_fds()
        process = SandboxProcess(lambda *_: None, must_wait=lambda: False)
        with pytest.raises(OSError, match="too many"):
            await process.start(Exhausted(Path()), Command(["true"], {}, Path("/")))
        assert psutil.Process().num_fds() == before

    asyncio.run(start())


def test_what_has_stopped_is_never_idle() -> None:
    async def use() -> list[str]:
        happened: list[str] = []
        idleness = Idleness(0.001)
        idleness.begin(lambda: happened.append("idle"))
        with idleness.busy():
            idleness.stop()
        # Later than the idle timeout, so it comes after it.
        await asyncio.sleep(0.002)
        return happened

    assert asyncio.run(use()) == []


def test_a_cancelled_caller_leaves_a_command_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A readiness probe is cancelled between the end of its command and that of its keeper."""

    async def cancel() -> None:
        started = asyncio.get_running_loop().create_future()

        async def start(_nurseries: Any, _command: Any, new: Any, _given_up: Any) -> Any:
            started.set_result(new())
            return started.result()

        monkeypatch.setattr(execs, "start_one", start)
        commands = execs.Execs(tmp_path, Any, Any, contextlib.nullcontext)
        caller = asyncio.ensure_future(commands.run(Command(["probe"], {}, tmp_path)))
        process: SandboxProcess = await started
        process.ended.set_result(Exit(1, killed=False))
        while not process.exited._callbacks:
            await asyncio.sleep(0)
        caller.cancel()
        closing = asyncio.ensure_future(commands.close())
        await asyncio.wait({closing}, timeout=0.01)
        assert caller.cancelled() and not closing.done()
        process.exited.set_result(Exit(1, killed=False))
        await closing

    asyncio.run(cancel())
