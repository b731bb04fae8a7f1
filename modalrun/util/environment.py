"""Undo changes of this process's environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def restored_environment() -> Iterator[None]:
    """Restore the environment after the block; other threads see what did not change all along."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            os.environ.pop(name, None)
        os.environ.update({k: v for k, v in before.items() if os.environ.get(k) != v})
