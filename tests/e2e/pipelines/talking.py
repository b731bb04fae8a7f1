"""Steps whose output is worth a look."""

import os
import sys
import time

from zenml import pipeline, step


@step
def clock(ticks: int) -> None:
    """Print the time, over and over."""
    for _ in range(ticks):
        print(f"tick {time.time()}")
        time.sleep(0.01)


@step
def noise() -> None:
    """Print what a terminal must not get as it is."""
    print("title \x1b]0;owned\x07 cleared \x1b[2J\x1b[H nul \0 bell \a end")
    print("\x1b[31mred\x1b[0m and [bold]no markup[/bold]")
    sys.stdout.flush()
    os.write(1, b"bytes \xff\xfe\x80 end\n")
    os.write(2, b"error bytes \xc3\x28 end\n")
    os.write(1, b"x" * 1_000_000 + b"\n")
    print("10 %\r50 %\r100 %")
    print("ünïcödé ✓")
    print("after the noise")


@pipeline(enable_cache=False)
def ticking(ticks: int = 200) -> None:
    """Print the time."""
    clock(ticks)


@pipeline(enable_cache=False)
def noisy() -> None:
    """Make noise."""
    noise()


@step
def commander() -> None:
    """Print what CI takes for commands, and fail with a message that is one."""
    print("::error::owned")
    print("##[group]owned ##vso[task.setvariable variable=x]owned")
    print("10 %\r::add-mask::owned")
    print("\u200b::warning::owned \u202eolleh \x1b[8mhidden\x1b[30;40mblack")
    raise ValueError("a\n::error::owned\n##[error]owned \u2060\x1b[2J")


@pipeline(enable_cache=False)
def commanding() -> None:
    """Command whoever reads the output."""
    commander()
