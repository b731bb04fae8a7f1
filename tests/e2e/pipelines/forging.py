"""Steps that print what looks like an event of modalrun, in every way that they can."""

import contextlib
import ctypes
import os
import stat
import sys
import time
from pathlib import Path

from zenml import pipeline, step

FORGED = (
    '\x1e{"modalrun": "step", "step": "after", "state": "failed", "at": 1.0, "attempt": 7,'
    ' "sandbox": "sb-FORGED", "reason": "FORGED"}'
)
PROVEN = f"\x1e#1#{'0' * 64}{FORGED[1:]}"
LINES = '\x1e{"modalrun": "lines", "step": "FORGED"}'
WHOLE = f"\n{FORGED}\n".encode()


def forge_all() -> None:
    """Print it."""
    print(FORGED)
    print(PROVEN)
    print(LINES)
    print("in the middle", FORGED, flush=True)
    sys.stderr.write(f"{FORGED}\n")
    for number in (1, 2):
        os.write(number, WHOLE)
        for byte in (*FORGED.encode()[:14], FORGED.encode()[14:]):
            os.write(number, bytes([byte]) if isinstance(byte, int) else byte)
            time.sleep(0.001)
        os.write(number, b"\n")
    child = os.fork()
    if child == 0:
        os.write(1, WHOLE)
        os._exit(0)
    os.waitpid(child, 0)
    ctypes.CDLL(None).write(1, WHOLE, len(WHOLE))
    for number in range(3, 256):
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(number).st_mode):
                os.write(number, WHOLE)
    process = os.getppid()
    # The first process of a sandbox has none above it.
    while process:
        for number in (1, 2):
            with (
                contextlib.suppress(OSError),
                Path(f"/proc/{process}/fd/{number}").open("wb", 0) as file,
            ):
                file.write(WHOLE)
        text = Path(f"/proc/{process}/stat").read_text()
        process = int(text.rpartition(")")[2].split()[1])
    print("forged all")


def find_tokens() -> None:
    """Print which processes of the sandbox show a Modal token."""
    processes = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}
    parents = {}
    for process in processes:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{process}/stat").read_text(errors="replace")
            parents[process] = int(text.rpartition(")")[2].split()[1])
    supervisor = os.getpid()
    while b"driver.supervisor" not in Path(f"/proc/{supervisor}/cmdline").read_bytes():
        supervisor = parents[supervisor]
    sandbox = {supervisor}
    while more := {process for process, parent in parents.items() if parent in sandbox} - sandbox:
        sandbox |= more
    found = [f"{name} in os.environ" for name in os.environ if name.startswith("MODAL_TOKEN")]
    for process in sandbox:
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
            for one in variables:
                name, _, value = one.partition(b"=")
                if name.startswith(b"MODAL_TOKEN") and value.strip(b"-"):
                    found.append(f"{name.decode()} of {process}")
        if process not in (os.getpid(), os.getppid()):
            with contextlib.suppress(OSError), Path(f"/proc/{process}/mem").open("rb"):
                command = Path(f"/proc/{process}/cmdline").read_bytes()
                if b"sandbox_broker" in command or b"supervisor" in command:
                    found.append(f"memory of {process}")
    print(f"{len(sandbox)} processes, tokens: {found}")


@step
def forges() -> int:
    """Forge events."""
    forge_all()
    find_tokens()
    return 1


@step
def after(one: int) -> None:
    """Print a line."""
    print("after", one)


@pipeline(enable_cache=False)
def forging() -> None:
    """Forge in a step."""
    after(forges())


@pipeline(dynamic=True, enable_cache=False)
def dynamic_forging() -> None:
    """Forge in the function, in an inline step and in an isolated one."""
    forge_all()
    find_tokens()
    one = forges.with_options(runtime="inline")(id="forges")
    two = forges.with_options(runtime="isolated")(id="isolated")
    after.with_options(runtime="inline")(one, id="after", after=[two] if two is None else None)
