"""Steps that leave a process of no use behind, each with a step after it."""

import os
import sys

from zenml import pipeline, step


@step
def forks() -> str:
    """Return in two processes."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return "parent" if child else "child"


@step
def closes() -> int:
    """Close the standard streams' descriptors."""
    os.close(1)
    os.close(2)
    return 1


@step
def unloads() -> int:
    """Forget the modules of ZenML."""
    for name in list(sys.modules):
        if name.startswith("zenml"):
            del sys.modules[name]
    return 1


@step
def fine(text: str = "fine") -> int:
    """Be well."""
    print(f"got {text}")
    return 1


@pipeline(enable_cache=False)
def spoiling() -> None:
    """All of them, one after the other."""
    fine(forks(), id="uses")
    closes()
    fine("still open", id="prints", after=["closes", "uses"])
    unloads(after=["prints"])
    fine("loaded", id="last", after=["prints"])


@pipeline(enable_cache=False, dynamic=True)
def dynamic_forking() -> None:
    """Go on with what a step has returned, in the one process that may."""
    got = forks().load()
    print(f"the function goes on with {got}")
