"""Workers of a `pipeline` run: real processes, in which a few lines stand in for ZenML's steps."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from commands import DEADLINE

from modalrun.driver.lines.throttle import PAUSE
from modalrun.run import events
from modalrun.run.events import Redraw

BENCH = """
import asyncio, contextlib, os, signal, sys, time
from modalrun.driver.workers import worker
from modalrun.driver.processes.process import buffer_lines
from modalrun.driver.workers.worker_pool import WorkerPool
from modalrun.driver.workers.worker_process import WorkerDied, WorkerError

class Steps:
    def initialize(self): pass
    def run(self, name, signals, failed):
        exec(name.partition(": ")[2], {**globals(), "signals": signals})
        return "completed"
    def cleanup(self): print("cleaned up")

class Worker(worker.Worker):
    def __init__(self, connection):
        self._connection, self._ready, self._loaded = connection, False, Steps()
        self._connected = True

worker.Worker = Worker

async def step(pool, name, then=""):
    try:
        with pool.worker() as used:
            end = await used.ask("run", name, step=name.partition(": ")[0])
            pool.log(None, f"{name.partition(': ')[0]} {end.state}")
    except (WorkerDied, WorkerError) as error:
        pool.log(None, f"{name.partition(': ')[0]} {type(error).__name__}: {error}")

async def main():
    with contextlib.closing(WorkerPool()) as pool:
        await steps(pool)

buffer_lines()
"""


def write_bench(tmp_path: Path, steps: str) -> None:
    body = textwrap.indent(textwrap.dedent(steps), "    ")
    script = f"{BENCH}\nasync def steps(pool):\n{body}\nasyncio.run(main())\n"
    (tmp_path / "bench.py").write_text(script, encoding="utf-8")


def run(tmp_path: Path, steps: str) -> tuple[list[str], list[str]]:
    """Run steps (NAME: CODE) in workers; return the lines of both streams, with their steps."""
    write_bench(tmp_path, steps)
    done = subprocess.run(
        [sys.executable, "bench.py"],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
        env={**os.environ, "MODALRUN_RUN_ID": "some-run"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return tagged(done.stdout.decode()), tagged(done.stderr.decode())


def tagged(text: str) -> list[str]:
    """Return the lines, each behind the step it belongs to."""
    step, lines = None, []
    for line in text.replace(events.MARK, f"\n{events.MARK}").split("\n"):
        event = events.read(line)
        if isinstance(event, events.LinesOf):
            step = event.step
        elif line:
            lines.append(f"{step or '-'} | {line}")
    return lines


WAYS = {
    "os._exit(0)": "The step's process ended with exit code 0.",
    "os._exit(143)": "The step's process ended with exit code 143.",
    "os.kill(os.getpid(), 9)": "The step's process was killed (SIGKILL).",
    "signal.signal(15, signal.SIG_DFL); os.kill(0, 15)": "The step's process died of SIGTERM.",
    "os.abort()": "The step's process died of SIGABRT.",
}


def test_a_worker_that_dies_takes_nothing_with_it(tmp_path: Path) -> None:
    calls = [f"await step(pool, 's{n}: print({n}); {way}')" for n, way in enumerate(WAYS)]
    out, err = run(tmp_path, "\n".join([*calls, "await step(pool, 'last: print(9)')"]))
    assert out == [*(f"s{n} | {n}" for n in range(len(WAYS))), "last | 9"]
    assert err == [
        *(f"- | s{n} WorkerDied: {reason}" for n, reason in enumerate(WAYS.values())),
        "- | last completed",
    ]


def test_a_hook_that_ends_its_worker_is_named(tmp_path: Path) -> None:
    out, err = run(
        tmp_path,
        """
        from modalrun.run import notes
        os.environ["MODALRUN_END_REASON_FILE"] = os.path.abspath("end-reason")
        def initialize(self):
            with notes.during("hook", "init"):
                os._exit(5)
        Steps.initialize = initialize
        await step(pool, "a: print('never')")
        """,
    )
    assert out == []
    assert err == ["- | a WorkerDied: The init hook's process ended with exit code 5."]


def test_a_step_that_closes_its_output_takes_it_from_no_other(tmp_path: Path) -> None:
    out, err = run(
        tmp_path,
        """
        await step(pool, "a: print('first'); sys.stdout.close()")
        await step(pool, "b: print('second'); os.close(1)")
        await step(pool, "c: print('third'); os.close(2)")
        await step(pool, "d: print('fourth')")
        """,
    )
    assert out == ["a | first", "b | second", "c | third", "d | fourth"]
    assert err == [f"- | {name} completed" for name in "abcd"]


def test_a_step_beside_a_death_goes_on(tmp_path: Path) -> None:
    out, err = run(
        tmp_path,
        """
        async def death():
            await step(pool, "b: os._exit(0)")
            os.mkdir("over")

        goes_on = "[time.sleep(0.01) for _ in iter(lambda: os.path.exists('over'), True)]"
        await asyncio.gather(step(pool, f"a: {goes_on}; print('a is there')"), death())
        """,
    )
    assert out == ["a | a is there"]
    assert err[-1] == "- | a completed"


def test_steps_one_after_the_other_share_a_worker_and_nothing_else(tmp_path: Path) -> None:
    out, _ = run(
        tmp_path,
        """
        await step(pool, "a: print(os.getpid()); os.environ['LEFT'] = '1'; os.chdir('/')")
        await step(pool, "b: print(os.getpid()); print(os.environ.get('LEFT'), os.getcwd())")
        print(await pool.clean_up(), flush=True)
        """,
    )
    first, second, rest, *_ = (line.partition(" | ")[2] for line in out)
    assert first == second
    assert rest == f"None {tmp_path}"
    assert "- | cleaned up" in out


def test_each_line_belongs_to_its_step(tmp_path: Path) -> None:
    out, _ = run(
        tmp_path,
        """
        many = "[print(NAME, n, 'x' * (n % 200)) for n in range(20000)]"
        await asyncio.gather(
            *(step(pool, f"{n}: " + many.replace("NAME", f"'{n}'")) for n in "abc")
        )
        """,
    )
    for name in "abc":
        own = [line for line in out if line.startswith(f"{name} | ")]
        assert own == [f"{name} | {name} {n} {'x' * (n % 200)}" for n in range(20_000)]
    assert len(out) == 60_000


def test_the_last_words_belong_to_their_step(tmp_path: Path) -> None:
    out, _ = run(
        tmp_path,
        """
        await step(pool, "a: print('no line feed', end=''); os.system('echo of a child')")
        await step(pool, "b: print('end', end='')")
        """,
    )
    assert out == ["a | of a child", "a | no line feed", "b | end"]


def test_the_bars_of_steps_side_by_side_are_told_and_logged_once(tmp_path: Path) -> None:
    bar = "[(print('%d %%' % n, end='\\\\r', flush=True), time.sleep(0.02)) for n in range(60)]"
    write_bench(tmp_path, f'await asyncio.gather(*(step(pool, f"{{n}}: {bar}") for n in "ab"))')
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "bench.py"],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "MODALRUN_RUN_ID": "some-run"},
    )
    most = 2 + (time.monotonic() - began) / PAUSE
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    told = [e for line in text.split("\n") if isinstance(e := events.split(line)[1], Redraw)]
    for name in "ab":
        texts = [one.text for one in told if one.step == name]
        assert 1 <= sum(text != "" for text in texts) <= most
        assert texts[-1] == "", "the line is in the log"
    printed = [line for line in tagged(text) if events.MARK not in line]
    # Of the states before the last one, some are dropped.
    assert [line[:4] + line.rstrip("\r")[-4:] for line in sorted(printed)] == [
        "a | 59 %",
        "b | 59 %",
    ]


def test_an_unfinished_line_is_passed_on(tmp_path: Path) -> None:
    write_bench(
        tmp_path,
        """
        shown = "print('50 %', end='', flush=True)"
        wait = "while not os.path.exists('seen'): time.sleep(0.01)"
        await step(pool, f"a: {shown}\\n{wait}")
        """,
    )
    with subprocess.Popen(
        [sys.executable, "bench.py"],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "MODALRUN_RUN_ID": "some-run"},
    ) as process:
        assert process.stdout is not None
        read = b""
        while b"50 %" not in read:
            chunk = os.read(process.stdout.fileno(), 4096)
            assert chunk
            read += chunk
        (tmp_path / "seen").touch()


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_long_line_flows_on_in_bounded_memory(tmp_path: Path) -> None:
    out, _ = run(
        tmp_path,
        """
        await step(pool, "a: [sys.stdout.write('x' * 1000000) for _ in range(50)]")
        most = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        print("", most.split()[1], flush=True)
        """,
    )
    assert sum(line.count("x") for line in out) == 50_000_000
    assert int(out[-1].split()[-1]) < 100_000


def test_what_a_dead_step_has_left_is_ended(tmp_path: Path) -> None:
    out, _ = run(
        tmp_path,
        """
        await step(pool, "a: print(os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '60')); os._exit(1)")
        """,
    )
    left = Path("/proc") / out[0].partition(" | ")[2]
    deadline = time.monotonic() + 20
    while left.exists() and " Z " not in (left / "stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="it needs PR_SET_PDEATHSIG")
def test_a_worker_ends_with_its_runner(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run(
            tmp_path,
            """
            async def die():
                while not os.path.lexists("pid"):
                    await asyncio.sleep(0.01)
                os.kill(os.getpid(), 9)
            task = asyncio.create_task(die())
            await step(pool, "a: os.symlink(str(os.getpid()), 'pid'); time.sleep(60)")
            """,
        )
    left = Path("/proc") / (tmp_path / "pid").readlink()
    deadline = time.monotonic() + 20
    while left.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


GRAPH = {"steps": {}, "retries": {}, "done": {}, "failure_mode": ""}
SPOILED = {
    "a pickle": repr(b"cposix\nsystem\n(S'touch pickled'\ntR.\n"),
    "a part": "b'{'",
    "an answer of the wrong type": repr(b'{"value": 3}\n'),
    "an early answer": repr(b'{"value": {"state": "completed"}}\n'),
    "another answer": (
        f"json.dumps({{'value': {GRAPH}, 'token': request.token}}).encode() + b'\\n'"
    ),
    "deep": "b'[' * 100000 + b'\\n'",
    "bytes": "bytes(range(256)) * 9",
}
"""What a step writes to the sockets of its process."""


@pytest.mark.parametrize("what", SPOILED)
def test_what_a_step_sends_to_the_runner_harms_only_itself(tmp_path: Path, what: str) -> None:
    (tmp_path / "spoil.py").write_text(
        f"""
import gc, json, os, stat, time
from modalrun.driver.workers.worker import Request
request = next(one for one in gc.get_objects() if isinstance(one, Request))
for number in range(3, 64):
    if os.path.exists(f"/proc/self/fd/{{number}}") and stat.S_ISSOCK(os.fstat(number).st_mode):
        os.write(number, {SPOILED[what]})
time.sleep(0.2)
""",
        encoding="utf-8",
    )
    out, err = run(
        tmp_path,
        """
        await step(pool, "a: import spoil")
        await step(pool, "b: print('fine')")
        """,
    )
    assert out == ["b | fine"]
    assert err[-1] == "- | b completed"
    assert not (tmp_path / "pickled").exists()
