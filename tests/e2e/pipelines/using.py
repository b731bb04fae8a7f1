"""Steps that use what they say: CPU, memory, nothing, processes of their own."""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from zenml import pipeline, step

MIB = 1024 * 1024


def burn(seconds: float) -> None:
    """Use so much CPU time, however long that takes."""
    start = time.process_time()
    while time.process_time() - start < seconds:
        sum(range(1000))


def resident() -> float:
    """Return the resident memory of this process in MiB."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / MIB


def tell(folder: str, name: str, **known: float) -> None:
    """Write down what the step knows of itself."""
    Path(folder, name).write_text(json.dumps(known))


@step
def computing(folder: str) -> None:
    """Burn two seconds."""
    began = time.process_time()
    burn(2)
    tell(folder, "computing", cpu=time.process_time() - began, memory=resident())


@step
def hoarding(folder: str) -> None:
    """Hold 700 MiB for a while."""
    began = time.process_time()
    held = bytearray(b"x") * (700 * MIB)
    memory = resident()
    time.sleep(1.5)
    # To give it back takes CPU time, too.
    del held
    tell(folder, "hoarding", cpu=time.process_time() - began, memory=memory)


@step
def sleeping(folder: str) -> None:
    """Do nothing for a while."""
    began = time.process_time()
    time.sleep(1.5)
    tell(folder, "sleeping", cpu=time.process_time() - began, memory=resident())


@step
def forking(folder: str) -> None:
    """Let two processes burn a second each; they share this one's memory."""
    began = time.process_time()
    held = bytearray(b"x") * (200 * MIB)
    memory = resident()
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=burn, args=(1,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    del held
    tell(folder, "forking", cpu=2 + time.process_time() - began, memory=memory)


@step
def dying(folder: str) -> None:
    """Hold 300 MiB, and die."""
    began = time.process_time()
    held = bytearray(b"x") * (300 * MIB)
    memory = resident()
    time.sleep(1.2)
    del held
    tell(folder, "dying", cpu=time.process_time() - began, memory=memory)
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


@step
def taken(folder: str) -> None:
    """Hold 300 MiB until that was sampled twice, and let the first process of the sandbox die."""
    held = bytearray(b"x") * (300 * MIB)
    tell(folder, "taken", memory=resident())
    log = Path(os.environ["MODALRUN_USAGE_FILE"])

    def samples() -> int:
        readings = map(json.loads, log.read_text().splitlines())
        return sum(one[0] == "sample" and one[4] > 300 * MIB for one in readings)

    while samples() < 2:
        time.sleep(0.1)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    del held


@pipeline(enable_cache=False)
def using(folder: str) -> None:
    """All of them, side by side if they may be."""
    for one in (computing, hoarding, sleeping, forking, dying):
        one(folder, id=one.name)


@pipeline(dynamic=True, enable_cache=False)
def using_dynamic(folder: str) -> None:
    """Some, one after the other in the process of the run."""
    for one in (computing, hoarding, sleeping):
        one(folder, id=one.name)


@step
def held(folder: str) -> None:
    """Hold 300 MiB until somebody kills the sandbox."""
    memory = bytearray(b"x") * (300 * MIB)
    tell(folder, "held", memory=resident())
    time.sleep(600)
    del memory


@pipeline(enable_cache=False)
def using_until_killed(folder: str) -> None:
    """Run the step that ends with its sandbox."""
    held(folder)


@pipeline(enable_cache=False)
def using_too_much(folder: str) -> None:
    """Run the step whose sandbox is killed."""
    taken(folder)


@step
def short() -> None:
    """Take no time."""


@pipeline(enable_cache=False)
def short_steps() -> None:
    """Run a step that is not worth measuring."""
    short()
